"""Schemas of comparisons of jobs."""

from typing import Any

from pydantic import Field

from api.schemas.base import Answer, Number
from api.schemas.judgements import JudgedShare
from core.domain.jobs.job_state import JobStatus


class Estimated(Answer):
    """A mean with its 95 % interval."""

    value: float = Field(description="The mean over the pairs.")
    low: float | None = Field(description="Lower end of the 95 % interval; null with one pair.")
    high: float | None = Field(description="Upper end.")


class PolicyPoint(Answer):
    """A policy at one evaluation on held-out rows."""

    step: int = Field(description="Step of the last training stage.")
    kl: Number = Field(description="Estimated KL(reference || policy), nats per response (`kl/sampled`).")
    reward_accuracy: Number = Field(description="Share of held-out pairs whose chosen response has the larger reward.")
    reward_margin: Number = Field(description="Mean reward margin of the held-out pairs.")
    loss: Number = Field(description="Loss on the held-out rows; those of different betas cannot be compared.")
    is_published: bool = Field(description="The job's artifact is this policy.")
    is_on_front: bool = Field(description="No point of any compared job has more accuracy at no more divergence.")


class ComparedJob(Answer):
    job_id: str = Field(description="The job.")
    name: str | None = Field(description="Its name.")
    status: JobStatus = Field(description="Its status.")
    beta: float | None = Field(description="Its beta; null of a supervised job.")
    settings: dict[str, Any] = Field(description="Its values of the settings that differ, by their place.")
    held_out: dict[str, Any] | None = Field(description="Figures of the published policy, as in the job's `results`.")
    points: list[PolicyPoint] = Field(description="Its evaluations, oldest first, at most the newest 200.")


class FrontPoint(Answer):
    job_id: str = Field(description="The job.")
    step: int = Field(description="Step of its evaluation.")
    kl: float = Field(description="Divergence from the reference, nats per response.")
    accuracy: float = Field(description="Reward accuracy.")


class Recommendation(Answer):
    job_id: str | None = Field(description="The job whose policy to take; null where none can be said.")
    reason: str = Field(description="Why, in one sentence.")


class ChangedPair(Answer):
    line: int = Field(description="Line of `pairs_dataset_id`.")
    place: int = Field(description="Place among the held-out pairs of that line, from 1.")
    num_of_line: int = Field(description="Held-out pairs of that line: a ranked list is many pairs.")
    margin: float = Field(description="Reward margin of this job's policy; above 0 it is right.")
    margin_of_other: float = Field(description="Reward margin of the policy of `against`.")


class Difference(Answer):
    """What a job is better by than `against`, on the held-out pairs of both."""

    job_id: str = Field(description="The job.")
    num_pairs: int = Field(description="Pairs that both hold out.")
    reward_accuracy: Estimated | None = Field(description="Mean difference; positive: this job is right more often.")
    preference_loss: Estimated | None = Field(
        description="Mean difference of -log sigmoid(reward margin), nats per pair; negative: this job is better."
    )
    gained: int = Field(description="Pairs that this job gets right and `against` does not.")
    lost: int = Field(description="Pairs that `against` gets right and this job does not.")
    changed: list[ChangedPair] = Field(description="Those pairs, at most 50, the furthest moved first.")
    reason: str | None = Field(description="Why there is no difference; null where there is one.")


class Differing(Answer):
    name: str = Field(description="Place of a setting in the body of `POST /jobs`, role of a dataset, or a library.")
    values: dict[str, Any] = Field(description="By job; null where it has none.")


class JudgedPoint(Answer):
    """A policy with its win rate."""

    job_id: str = Field(description="The job.")
    step: int | None = Field(description="Step of the last training stage; null where it is not known any more.")
    kl: Number = Field(description="Estimated KL(reference || policy) at that step, nats; null: not measured there.")
    win_rate: JudgedShare = Field(description="Share that the policy wins, whichever side it was judged as.")
    num_prompts: int = Field(description="Different prompts with a verdict.")
    num_failed: int = Field(description="Pairs without a verdict.")
    judgement_id: str = Field(description="The judgement.")
    is_published: bool = Field(description="The job's artifact is this policy.")
    is_on_front: bool = Field(description="No point of this table has a higher win rate at no more divergence.")


class WinRates(Answer):
    """What one judge says of policies against one opponent, on the same pairs of one dataset."""

    title: str = Field(description="What the win rates are, in one line.")
    judge: dict[str, Any] = Field(description="Who judges: `kind` with its settings.")
    opponent: str = Field(description="The other model; `@sft`: each job's own policy before DPO.")
    source: str = Field(description="Version of the dataset of answers.")
    num_pairs: int | None = Field(description="Pairs that were drawn of it at most, with `seed`; null: all.")
    seed: int = Field(description="Seed of that draw.")
    points: list[JudgedPoint] = Field(
        description="One for each policy, in the order of the jobs, of its newest judgement."
    )


class Comparison(Answer):
    """Jobs side by side."""

    sweep_id: str | None = Field(description="The sweep whose members they are; null for jobs named one by one.")
    jobs: list[ComparedJob] = Field(description="The jobs, in order.")
    front: list[FrontPoint] = Field(description="Pareto front of reward accuracy against divergence, by divergence.")
    win_rates: list[WinRates] = Field(
        description="Win rates out of judgements of these policies: by judge, opponent and answers, those of most jobs "
        "first, at most 20. The newest 1,000 judgements of policies are looked through."
    )
    recommended: Recommendation = Field(
        description="Of the policies not distinguishably less accurate than the best one, the nearest to the reference."
    )
    against: str | None = Field(description="The job that `differences` compare with; null without held-out pairs.")
    pairs_dataset_id: str | None = Field(description="Dataset whose lines `changed` names.")
    differences: list[Difference] = Field(description="One for each other job.")
    settings: list[Differing] = Field(description="Settings that differ.")
    data: list[Differing] = Field(description="Datasets that differ: name, id and digest.")
    code: list[Differing] = Field(description="Versions and devices that differ, of jobs that have published.")
    num_left_out: int = Field(description="Members of the sweep beyond the 64 that are compared.")
