"""Schemas of `/jobs/{id}/scores`."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StringConstraints, model_validator

from api.schemas.base import Answer, Id
from api.schemas.datasets import Role
from core.domain.request_status import RequestStatus

MAX_ROWS = 1000
MAX_TOKEN_ROWS = 20
"""Items whose tokens one request may ask for."""
Content = Annotated[str, StringConstraints(max_length=262_144, pattern=r"^[^\x00]*$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ScoredMessage(_Strict):
    role: Role = Field(description="Who speaks.")
    content: Content = Field(description="The text.")


Text = Content | Annotated[list[ScoredMessage], Field(max_length=1000)]


class ScoreItem(_Strict):
    prompt: Text = Field(description="As in a dataset: a string, or messages.")
    response: Text = Field(description="As in a dataset: a string, or messages.")


class ScorePair(_Strict):
    prompt: Text = Field(description="As in a dataset: a string, or messages.")
    chosen: Text = Field(description="The preferred response.")
    rejected: Text = Field(description="The other response.")


class ScoreRequest(_Strict):
    """Either `items` or `pairs`."""

    items: Annotated[list[ScoreItem], Field(min_length=1, max_length=MAX_ROWS)] | None = Field(
        None, description="Single responses."
    )
    pairs: Annotated[list[ScorePair], Field(min_length=1, max_length=MAX_ROWS)] | None = Field(
        None, description="Pairs of responses."
    )

    tokens: StrictBool = Field(
        False,
        description=f"Also each response's tokens with their log-ratios; with `items`, at most {MAX_TOKEN_ROWS}; not "
        "of a reward model.",
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> "ScoreRequest":
        if (self.items is None) == (self.pairs is None):
            raise ValueError("give items or pairs, one of them")
        if self.tokens and not 1 <= len(self.items or []) <= MAX_TOKEN_ROWS:
            raise ValueError(f"tokens go with items, at most {MAX_TOKEN_ROWS}: send a pair's responses as two items")
        return self


class Scores(Answer):
    id: Id
    job_id: Id
    status: RequestStatus = Field(description="Where the request is.")
    results: list[dict[str, Any]] | None = Field(
        description="In the order sent, once succeeded: `reward, policy_logp, reference_logp, num_tokens` of an item "
        "(the log-probabilities are null where a reward model scores), `chosen_reward, rejected_reward, margin, "
        "preference_probability` of a pair, or `error` of one not scored. With `tokens` an item has `tokens`: `text` "
        "and `log_ratio`, log p of the policy minus the reference's, nats."
    )
    error: str | None = Field(description="Why it failed; null unless it has.")
    created_at: datetime = Field(description="RFC 3339, UTC.")
