"""Schemas of `/rounds`; the requests are in `core.domain.judging.rounds`."""

from datetime import datetime
from typing import Any

from pydantic import Field

from api.schemas.base import Answer, Id
from api.schemas.judgements import JudgedShare
from core.domain.judging.rounds import RoundChild, RoundsStatus, RoundsStopReason, RoundStage, RoundStepStatus


class RoundDrift(Answer):
    """How far a policy is from the first one, on its own answers to held-out prompts."""

    num_answers: int = Field(description="Answers that have a log-probability under both.")
    kl: float = Field(description="Estimated KL divergence from the first policy, in nats per answer.")
    standard_error: float | None = Field(description="Its standard error; null of a single answer.")
    kl_per_token: float | None = Field(description="The same per token of the answers.")


class RoundStep(Answer):
    """One stage of one round, with the id of what does it."""

    round: int = Field(description="Number of the round, from 1; 0: before the first.")
    stage: RoundStage = Field(description="What is done.")
    status: RoundStepStatus = Field(
        description="`waiting` until its turn; `skipped` where the judge found nothing to learn in its round."
    )
    kind: RoundChild = Field(description="What does it: `child_id` is the id of such a thing.")
    child_id: str = Field(
        description="Id of its dataset, generation, judgement, job or scores (of the round's job); there is none "
        "while it is `waiting`. The job's or generation's own address shows its progress."
    )
    earlier_ids: list[str] = Field(description="Ids of those that failed before, where `resume` tried again.")
    result: dict[str, Any] = Field(description="What came of it, by its kind: `dataset_id`, counts, `win_rate` …")
    error: str | None = Field(description="Why it failed, or what it waits for; else null.")
    started_at: datetime | None = Field(description="RFC 3339, UTC; null before.")
    finished_at: datetime | None = Field(description="RFC 3339, UTC; null before.")


class Round(Answer):
    """One round: a point of the curve."""

    number: int = Field(description="From 1.")
    status: RoundStepStatus = Field(description="`running` from its first stage to its last.")
    start_policy: str | None = Field(description="Policy that it trains from; null while `initial` is trained.")
    policy: str | None = Field(description="Id of the job that trained its policy; null before.")
    num_pairs: int | None = Field(description="Pairs (or best answers) that the judge gave; null before.")
    win_rate: JudgedShare | None = Field(
        description="Of its policy against that of the round before, on held-out prompts; null before."
    )
    length_controlled: JudgedShare | None = Field(
        description="What that would be if both answers were equally long; null before."
    )
    win_rate_first: JudgedShare | None = Field(description="Of its policy against the first one; null before.")
    drift: RoundDrift | None = Field(
        description="From the first policy; null before, with the method supervised, and for variants without a "
        "reference."
    )
    started_at: datetime | None = Field(description="RFC 3339, UTC; null before.")
    finished_at: datetime | None = Field(description="RFC 3339, UTC; null before.")


class PlannedJudgement(Answer):
    """A judgement of a round, before it is made."""

    stage: RoundStage = Field(description="`judge`, `compare` or `compare_first`.")
    num_pairs: int = Field(description="Pairs to judge, at most.")
    num_questions: int | None = Field(
        description="Questions to the language model, each pair in both orders; null of other judges."
    )
    max_requests: int | None = Field(
        description="Requests that it may cost, repeated ones among them; null of other judges. Pairs beyond have no "
        "verdict."
    )


class RoundsPreview(Answer):
    """What rounds would do."""

    before: list[RoundStage] = Field(description="Stages before the first round.")
    first_round: list[RoundStage] = Field(description="Stages of the first round.")
    later_rounds: list[RoundStage] = Field(description="Stages of each further round; none where there is one round.")
    num_prompts: int = Field(description="Prompts that are answered in each round.")
    num_answers: int = Field(description="Answers to them.")
    num_held_out: int = Field(description="Held-out prompts that the policies of all rounds answer.")
    max_rows: list[int] = Field(description="Rows that each round trains on, at most: pairs, or best answers.")
    judgements: list[PlannedJudgement] = Field(description="Judgements of a round, of a further one where there is.")


class PolicyRounds(Answer):
    """Rounds of answering, judging and training, as one timeline."""

    id: Id
    name: str | None = Field(description="A name to recognise them by.")
    status: RoundsStatus = Field(
        description="`finished` and `cancelled` are final; `failed` goes on with `resume`, `finished` with `extend`."
    )
    num_rounds: int = Field(description="Rounds at most.")
    first_policy: str | None = Field(description="Where the rounds start; null while `initial` is trained.")
    best_policy: str | None = Field(
        description="The policy with the highest win rate against the first one, so far; the first one where none "
        "wins more than half."
    )
    stop_reason: RoundsStopReason | None = Field(description="Why they have finished; else null.")
    error: str | None = Field(description="Which stage has failed, and why; else null.")
    rounds: list[Round] = Field(description="The rounds that are done or planned, in order.")
    steps: list[RoundStep] = Field(description="Their stages, in order.")
    requested: dict[str, Any] = Field(description="The request as sent, with the versions of its datasets.")
    metadata: dict[str, str] = Field(description="Strings of yours.")
    created_at: datetime = Field(description="RFC 3339, UTC.")
    finished_at: datetime | None = Field(description="When they ended, RFC 3339, UTC; null before.")
