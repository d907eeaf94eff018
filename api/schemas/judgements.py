"""Schemas of `/judgements`; the request is in `core.domain.judging.judgements`."""

from datetime import datetime
from typing import Any

from pydantic import Field

from api.schemas.base import Answer, Id
from api.schemas.datasets import Text
from core.domain.jobs.job_state import Stage
from core.domain.judging.generations import WorkStatus


class JudgedShare(Answer):
    """A share with its interval."""

    value: float = Field(description="The share; a tie counts half.")
    low: float = Field(description="Lower end of the interval of 95 %.")
    high: float = Field(description="Upper end.")


class JudgeAgreement(Answer):
    """How often two say the same of the same pairs."""

    num_pairs: int = Field(description="Pairs that both decided, ties among them.")
    value: float = Field(description="Share of them in which both say the same.")
    low: float = Field(description="Lower end of Wilson's interval of 95 %.")
    high: float = Field(description="Upper end.")
    kappa: float | None = Field(description="Cohen's kappa, against agreement by chance; null where that is certain.")


class PositionBias(Answer):
    """What a language model said of pairs in both orders."""

    num_pairs: int = Field(description="Pairs that it judged in both orders.")
    num_consistent: int = Field(description="Those of them that got the same verdict in both; the others are ties.")
    first_shown_share: float | None = Field(
        description="How often it preferred the answer shown first, a tie counting half: 0.5 is no bias."
    )


class Judgement(Answer):
    """Verdicts on pairs of answers, and the win rate that they give."""

    id: Id
    name: str | None = Field(description="A name to recognise it by.")
    status: WorkStatus = Field(description="`succeeded`, `failed` and `cancelled` are final.")
    source: str = Field(description="Version of the dataset that is judged.")
    models: list[str] = Field(description="The two models; of a file's pairs `chosen` and `rejected`.")
    num_pairs: int = Field(description="Pairs of the judgement.")
    num_judged: int = Field(description="Pairs that are done, those without a verdict among them.")
    num_failed: int = Field(description="Pairs that have no verdict: none is made up.")
    num_requests: int = Field(description="Requests to a language model, with those set aside for pairs under way.")
    num_cached: int = Field(description="Questions to it that were answered before.")
    faults: dict[str, int] = Field(
        description="Faults by kind: `timed_out`, `unreachable`, `http_error`, `nonsense`, `not_scored`, `not_voted`, "
        "`budget`; those of requests that were repeated with success among them."
    )
    position: PositionBias | None = Field(description="Of a language model: what the order does; else null.")
    win_rate: JudgedShare | None = Field(
        description="Share that the first model wins, with an interval over prompts; null before the end."
    )
    length_controlled: JudgedShare | None = Field(
        description="What it would be if both answers were equally long; null before the end."
    )
    label_agreement: JudgeAgreement | None = Field(
        description="Agreement with the file's own labels; null of responses, and before the end."
    )
    num_ties: int | None = Field(description="Ties, equal answers among them; null before the end.")
    num_prompts: int | None = Field(description="Different prompts with a verdict; null before the end.")
    error: str | None = Field(description="Why it failed; else null.")
    dataset_id: str | None = Field(description="Preference dataset of the pairs with a better answer; null: none.")
    is_held: bool = Field(description="Its rounds are paused: it goes on with them.")
    requested: dict[str, Any] = Field(description="The request as sent.")
    metadata: dict[str, str] = Field(description="Strings of yours.")
    created_at: datetime = Field(description="RFC 3339, UTC.")
    finished_at: datetime | None = Field(description="When it ended, RFC 3339, UTC; null before.")


class JudgedPair(Answer):
    """A pair with its verdict."""

    position: int = Field(description="Place among the pairs, from 1.")
    prompt: Text = Field(description="What both answer.")
    first: Text = Field(description="Answer of the first model.")
    second: Text = Field(description="Answer of the second.")
    verdict: str | None = Field(description="`first`, `second` or `tie`; null: not judged, or it could not be.")
    confidence: float | None = Field(description="From 0.5 to 1, as the judge has it; null without a verdict.")
    detail: dict[str, Any] = Field(description="`reason`, `scores`, `verdicts` of both orders, or the `fault`.")


class PolicyWinRate(Answer):
    """A judgement of one policy of a job against another model: a point of its win rate over training."""

    judgement_id: Id
    name: str | None = Field(description="A name to recognise the judgement by.")
    status: WorkStatus = Field(description="Of the judgement.")
    policy: str = Field(
        description="The policy, as it was named: `job_…`, `job_…@<checkpoint id>`, `job_…@sft`, `ft:…`."
    )
    stage: Stage | None = Field(description="Stage of training that it is of; null of a checkpoint without a record.")
    step: int | None = Field(description="Step of that stage; null of `job_…@sft` and while a job has no results.")
    against: str = Field(description="The other model.")
    judge: dict[str, Any] = Field(description="Who judged: `kind` with its settings.")
    source: str = Field(description="Version of the dataset that was judged.")
    num_pairs: int = Field(description="Pairs of the judgement.")
    num_judged: int = Field(description="Pairs that are done, those without a verdict among them.")
    num_failed: int = Field(description="Pairs that have no verdict.")
    num_prompts: int | None = Field(description="Different prompts with a verdict; null before the end.")
    win_rate: JudgedShare | None = Field(description="Share that the policy wins, whichever side it was judged as.")
    length_controlled: JudgedShare | None = Field(description="What it would be if answers were equally long.")
    created_at: datetime = Field(description="Of the judgement, RFC 3339, UTC.")
