"""Schemas of `/jobs/{id}/pairs` and `/jobs/{id}/rerun`."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.schemas.base import Answer, Number
from api.schemas.job_records import Split
from core.domain.jobs.whole_numbers import Lines

PairFlag = Literal["likely_mislabelled", "never_learned", "already_satisfied", "forgotten", "truncated"]


class Pair(Answer):
    line: int = Field(description="Line of the file as uploaded.")
    split: Split = Field(description="Whether the pair was trained on.")
    reference_margin: Number = Field(description="Nats: log-probability of chosen minus rejected before DPO.")
    margin_first: Number = Field(description="Reward margin when first seen, before the pair was trained on.")
    margin_last: Number = Field(description="Reward margin under the final policy.")
    chosen_reward: Number = Field(description="Under the final policy.")
    rejected_reward: Number = Field(description="Under the final policy.")
    gradient_weight: Number = Field(description="sigmoid(-margin_last): how strongly the pair would still pull.")
    length_difference: int | None = Field(None, description="Tokens of chosen minus tokens of rejected.")
    mislabelled_score: Number = Field(
        None, description="Standard deviations by which the margin, before training on it, lay below its neighbours'."
    )
    flags: list[PairFlag] = Field(description="What is remarkable about it.")


class Rerun(BaseModel):
    """Changes of the data. Both lists name lines of the uploaded file."""

    model_config = ConfigDict(extra="forbid")

    exclude_lines: Annotated[Lines, Field(default_factory=list, description="Pairs to leave out.")]
    swap_lines: Annotated[Lines, Field(default_factory=list, description="Pairs to swap: chosen becomes rejected.")]
