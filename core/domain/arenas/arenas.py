"""Arenas: what is compared, what a vote says, which answer stands on which side, how certain the standing is."""

import hashlib
import math
from enum import StrEnum
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, StringConstraints, model_validator

from core.domain.jobs.job_spec import Metadata, Name, Payload
from core.domain.json_numbers import MAX_WHOLE, REAL, WHOLE

MAX_PAIRS = 2000
MAX_PROMPTS = 1000
MAX_TEXT_CHARS = 100_000
ROW_SIDES = ("chosen", "rejected")
"""Names of the two sides of a file's rows."""
_Z_95 = 1.959963984540054

VoterName = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+$")]
PromptText = Annotated[str, StringConstraints(min_length=1, max_length=MAX_TEXT_CHARS, pattern=r"^[^\x00]*$")]


class PairState(StrEnum):
    WAITING = "waiting"
    """Its answers are not there yet."""
    READY = "ready"
    EQUAL = "equal"
    """Both answers are the same: nobody is asked."""
    FAILED = "failed"
    """A model cannot answer this prompt."""


class Verdict(StrEnum):
    """What a vote says of the first and the second answer, wherever they stood."""

    FIRST = "first"
    SECOND = "second"
    TIE = "tie"
    BOTH_BAD = "both_bad"


PromptRole = Literal["system", "user", "assistant"]
Choice = Literal["left", "right", "tie", "both_bad"]
"""What a voter says of what stands before them."""


class PromptMessage(Payload):
    """A message of a prompt."""

    role: PromptRole = Field(description="Who speaks.")
    content: PromptText = Field(description="The text.")


class ArenaSampling(Payload):
    """How both models answer."""

    max_tokens: Annotated[int, Field(ge=1, le=8192), WHOLE] = Field(256, description="Most tokens of an answer.")
    temperature: Annotated[float, Field(ge=0, le=2), REAL] = Field(1.0, description="0: always the likeliest token.")
    top_p: Annotated[float, Field(gt=0, le=1), REAL] = Field(1.0, description="Share of probability drawn from.")
    seed: Annotated[int, Field(ge=0, le=2**31 - 1), WHOLE] = Field(
        0, description="The same seed gives the same answers."
    )


class ArenaRequest(Payload):
    """The body of `POST /arenas`: two models and prompts, or the rows of a dataset."""

    models: Annotated[list[Name], Field(min_length=2, max_length=2)] | None = Field(
        None,
        description="Two models that answer: base models, `job_…`, `job_…@<checkpoint id>`, `job_…@sft` or `ft:…`. "
        "null: the rows of the dataset are the pairs, chosen against rejected.",
    )
    dataset_id: Name | None = Field(
        None, description="Where prompts, or with no models the pairs, are drawn from: `ds_…` or `ds_…@<version>`."
    )
    prompts: Annotated[list[PromptText | list[PromptMessage]], Field(min_length=1, max_length=MAX_PROMPTS)] | None = (
        Field(None, description="Prompts instead of a dataset: messages, or a text that is continued as it stands.")
    )
    num_pairs: Annotated[int, Field(ge=1, le=MAX_PAIRS), WHOLE] = Field(
        100, description="How many are drawn of the dataset at most, each prompt once."
    )
    votes_per_pair: Annotated[int, Field(ge=1, le=10), WHOLE] = Field(
        1, description="Votes that each pair gets, each of another voter."
    )
    sampling: ArenaSampling = Field(default_factory=ArenaSampling, description="How the models answer.")
    seed: Annotated[int, Field(ge=0, le=MAX_WHOLE), WHOLE] = Field(0, description="Seed of the draw and of the sides.")
    name: Name | None = Field(None, description="A name to recognise it by.")
    metadata: Metadata = Field(default_factory=dict, description="Strings of yours.")

    @model_validator(mode="after")
    def _one_source(self) -> "ArenaRequest":
        if self.models is None and (self.dataset_id is None or self.prompts is not None):
            raise ValueError("without models, dataset_id names the pairs, and there are no prompts")
        if self.models is not None and (self.dataset_id is None) == (self.prompts is None):
            raise ValueError("give dataset_id or prompts, whichever the models are to answer")
        return self


class ArenaPatch(Payload):
    """Changes of an arena."""

    is_open: bool = Field(True, strict=True, description="false: nobody gets a pair or votes any more.")


class LeaseRequest(Payload):
    """Pairs that a voter is to look at."""

    voter: VoterName | None = Field(
        None, description="Who votes, where several people share a key; null: the key's holder."
    )
    count: Annotated[int, Field(ge=1, le=4), WHOLE] = Field(
        1, description="How many; those that the voter has are among them."
    )


def is_swapped(seed: int, pair_id: str, voter: str) -> bool:
    """Whether the second answer stands on the left for this voter: drawn, and the same every time."""
    return bool(hashlib.sha256(f"{seed} {pair_id} {voter}".encode()).digest()[0] & 1)


def verdict_of(choice: Choice, *, swapped: bool) -> Verdict:
    """Return what a choice says of the first and second answer."""
    if choice in ("left", "right"):
        return Verdict.SECOND if (choice == "left") is swapped else Verdict.FIRST
    return Verdict(choice)


class Interval(NamedTuple):
    value: float
    low: float
    high: float


def win_rate(wins: int, draws: int, num_votes: int) -> Interval:
    """Return the share of votes won, a draw counting half, with Wilson's interval of 95 % (Wilson 1927, eq. 5).

    Without a vote: 0.5, from 0 to 1.
    """
    if num_votes == 0:
        return Interval(0.5, 0.0, 1.0)
    share, z2 = (wins + draws / 2) / num_votes, _Z_95**2
    middle = (share + z2 / (2 * num_votes)) / (1 + z2 / num_votes)
    spread = share * (1 - share) / num_votes + z2 / (4 * num_votes**2)
    half = _Z_95 / (1 + z2 / num_votes) * math.sqrt(spread)
    return Interval(share, max(0.0, middle - half), min(1.0, middle + half))
