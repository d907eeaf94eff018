"""Judgements: which of two answers is better, by a rule, by rewards, or by a language model; how it is asked for."""

import hashlib
import json
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from core.domain.jobs.job_spec import Metadata, Name, Payload
from core.domain.json_numbers import MAX_WHOLE, WHOLE
from core.domain.judging import pairwise

MAX_PAIRS = 5000
MAX_PATTERN_CHARS = 2000
MAX_TEXT_CHARS = 20_000
MAX_SCHEMA_BYTES = 65_536

JudgeKind = Literal["length", "regex", "exact_match", "json_schema", "reward", "model", "arena"]
PairState = Literal["first", "second", "tie", "failed", "open"]
"""Verdict of a pair; without one, whether the judge has failed on it, or it is not judged yet."""
LengthPreference = Literal["shorter", "longer"]

_OWN: dict[str, tuple[str, ...]] = {
    "length": ("prefers",),
    "regex": ("pattern",),
    "exact_match": ("text",),
    "json_schema": ("json_schema",),
    "reward": ("job_id",),
    "model": ("template", "criteria", "max_requests"),
    "arena": ("arena_id",),
}
"""Settings of each kind; those of another one are refused."""
_NEEDED = {
    "regex": "pattern",
    "exact_match": "text",
    "json_schema": "json_schema",
    "reward": "job_id",
    "arena": "arena_id",
}


class PairVerdict(StrEnum):
    FIRST = "first"
    SECOND = "second"
    TIE = "tie"

    @property
    def score(self) -> float:
        """1 where the first answer is better, 0 where the second is, 0.5 for a tie."""
        return {"first": 1.0, "second": 0.0, "tie": 0.5}[self.value]


class JudgeFault(StrEnum):
    """What went wrong with one question to a judge."""

    TIMED_OUT = "timed_out"
    UNREACHABLE = "unreachable"
    HTTP_ERROR = "http_error"
    NONSENSE = "nonsense"
    """The answer holds no verdict."""
    NOT_SCORED = "not_scored"
    NOT_VOTED = "not_voted"
    """Nobody has voted on the pair in the arena."""
    BUDGET = "budget"
    """The question was not asked: the judgement has asked what it may."""


class Judge(Payload):
    """Who judges. A rule scores each answer, and the higher score is better; equal scores are a tie."""

    kind: JudgeKind = Field(
        description="`length`, `regex` (an answer that matches is better), `exact_match`, `json_schema`: rules; "
        "`reward`: rewards by the policy of a job, as `POST /jobs/{id}/scores` gives them; `model`: the language model "
        "that the operator has configured; `arena`: people, by their votes on the same pairs in an arena."
    )
    prefers: LengthPreference | None = Field(None, description="`length`: which answer is better; default shorter.")
    pattern: Annotated[str, StringConstraints(min_length=1, max_length=MAX_PATTERN_CHARS)] | None = Field(
        None, description="`regex`: found anywhere in the answer; Rust's syntax, without look-around."
    )
    text: Annotated[str, StringConstraints(max_length=MAX_TEXT_CHARS)] | None = Field(
        None, description="`exact_match`: the answer, but for white space at its ends."
    )
    json_schema: dict[str, Any] | None = Field(
        None, description="`json_schema`: JSON Schema (draft 2020-12) that the answer, as JSON, must keep to."
    )
    job_id: Name | None = Field(None, description="`reward`: the job.")
    arena_id: Name | None = Field(None, description="`arena`: the arena.")
    template: Annotated[str, StringConstraints(pattern=r"^pairwise-[12]$")] | None = Field(
        None,
        description="`model`: version of the question; default the newest. `pairwise-1` shows no tools and documents.",
    )
    criteria: Annotated[str, StringConstraints(min_length=1, max_length=MAX_TEXT_CHARS)] | None = Field(
        None, description="`model`: what makes an answer better, in your words."
    )
    max_requests: Annotated[int, Field(ge=1, le=100_000), WHOLE] | None = Field(
        None, description="`model`: requests that it may cost, repeated ones among them; default the operator's bound."
    )

    @model_validator(mode="after")
    def _own_settings_only(self) -> "Judge":
        given = {name for names in _OWN.values() for name in names if getattr(self, name) is not None}
        if foreign := sorted(given - set(_OWN[self.kind])):
            raise ValueError(f"{', '.join(foreign)}: not a setting of a judge of kind {self.kind}")
        needed = _NEEDED.get(self.kind)
        if needed is not None and getattr(self, needed) is None:
            raise ValueError(f"a judge of kind {self.kind} needs {needed}")
        if self.json_schema is not None and len(json.dumps(self.json_schema)) > MAX_SCHEMA_BYTES:
            raise ValueError(f"json_schema may have {MAX_SCHEMA_BYTES:,} bytes as JSON")
        return self


class JudgementRequest(Payload):
    """The body of `POST /judgements`: pairs and who judges them."""

    dataset_id: Name = Field(
        description="Responses, of which answers to one prompt are paired; or preferences, chosen against rejected."
    )
    models: Annotated[list[Name], Field(min_length=2, max_length=2)] | None = Field(
        None,
        description="Of responses: the two models compared, the first of which the win rate is about. null: the "
        "two that the dataset has; one model is compared with itself.",
    )
    judge: Judge = Field(description="A rule, rewards, or a language model.")
    num_pairs: Annotated[int, Field(ge=1, le=MAX_PAIRS), WHOLE] | None = Field(
        None, description=f"How many pairs are drawn at most; null: all, up to {MAX_PAIRS}."
    )
    seed: Annotated[int, Field(ge=0, le=MAX_WHOLE), WHOLE] = Field(0, description="Seed of the draw.")
    name: Name | None = Field(None, description="A name to recognise it by; the dataset's too.")
    metadata: Metadata = Field(default_factory=dict, description="Strings of yours.")

    def with_template(self) -> "JudgementRequest":
        """Name the version of a language model's question, so that a later release asks the same one to the end."""
        if self.judge.kind != "model" or self.judge.template is not None:
            return self
        return self.model_copy(update={"judge": self.judge.model_copy(update={"template": pairwise.NEWEST})})


def pair_key(prompt: Any, first: Any, second: Any) -> str:
    """Return the digest of a pair, by which another judge's verdict on it is found; the order counts."""
    text = json.dumps([prompt, first, second], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
