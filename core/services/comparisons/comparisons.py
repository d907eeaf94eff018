"""Comparison of jobs: reward accuracy against divergence, the setting to take, paired differences, what differs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from core.domain.errors import InvalidRequest
from core.domain.jobs.job_state import JobStatus
from core.domain.training.comparisons import Estimated, Point, changed_sides, paired_difference, pareto_front
from core.services.backend import Backend
from core.services.comparisons.choice import choose
from core.services.comparisons.differing import Differing, differing_code, differing_data, differing_settings
from core.services.comparisons.gathering import ComparedRun, gather
from core.services.comparisons.win_rates import WinRates, find_win_rates
from core.services.sweeps import sweeps

MAX_JOBS = 64
MAX_CHANGED = 50
"""Pairs that changed sides which are named one by one; all are counted."""


@dataclass(frozen=True, kw_only=True)
class PolicyPoint:
    """A policy at one evaluation on held-out rows."""

    step: int
    kl: float | None
    """Estimated KL(reference || policy), nats per response."""
    reward_accuracy: float | None
    reward_margin: float | None
    loss: float | None
    is_published: bool
    is_on_front: bool


@dataclass(frozen=True, kw_only=True)
class ComparedJob:
    job_id: str
    name: str | None
    status: JobStatus
    beta: float | None
    settings: dict[str, Any]
    """Its values of the settings that differ."""
    held_out: dict[str, Any] | None
    """Figures of the published policy with their intervals, as in the job's results."""
    points: list[PolicyPoint]


@dataclass(frozen=True, kw_only=True)
class ChangedPair:
    line: int
    """Line of the dataset that the rows are held out of."""
    place: int
    """Place among the held-out pairs of that line, from 1."""
    num_of_line: int
    margin: float
    margin_of_other: float
    """Margin under the policy of the job that it is compared with."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What a job is better by than the one that all are compared with, on the same held-out pairs."""

    job_id: str
    num_pairs: int
    reward_accuracy: Estimated | None
    preference_loss: Estimated | None
    gained: int
    lost: int
    changed: list[ChangedPair]
    reason: str | None
    """Why there is no difference; None where there is one."""


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    job_id: str | None
    reason: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    sweep_id: str | None
    jobs: list[ComparedJob]
    front: list[Point]
    win_rates: list[WinRates]
    """One table for each judge, opponent and dataset of answers."""
    recommended: Recommendation
    against: str | None
    """The job that `differences` compare with; None where no job has a report on held-out pairs."""
    pairs_dataset_id: str | None
    """The dataset that the held-out pairs of that job are lines of."""
    differences: list[Difference]
    settings: list[Differing]
    data: list[Differing]
    code: list[Differing]
    num_left_out: int
    """Members of the sweep beyond those that are compared."""


def of_sweep(backend: Backend, project_id: str, sweep_id: str, *, against: str | None = None) -> Comparison:
    """Compare the members of a sweep that have a job: at most `MAX_JOBS`, those that have succeeded first.

    Raises SweepNotFound, InvalidRequest.
    """
    view = sweeps.get(backend, project_id, sweep_id)
    known = [member for member in view.members if member.status in {status.value for status in JobStatus}]
    order = sorted(known, key=lambda member: (member.status != JobStatus.SUCCEEDED.value, member.is_dropped))
    chosen = {member.job_id for member in order[:MAX_JOBS]}
    job_ids = [member.job_id for member in known if member.job_id in chosen]
    return _compare(backend, project_id, job_ids, against, sweep_id=sweep_id, num_left_out=len(known) - len(job_ids))


def of_jobs(backend: Backend, project_id: str, job_ids: Sequence[str], *, against: str | None = None) -> Comparison:
    """Compare jobs in the order given. Raises JobNotFound, InvalidRequest."""
    chosen = list(dict.fromkeys(job_ids))
    if not 1 <= len(chosen) <= MAX_JOBS:
        raise InvalidRequest(f"Name 1 to {MAX_JOBS} jobs; {len(chosen)} were named.")
    return _compare(backend, project_id, chosen, against)


def _compare(
    backend: Backend,
    project_id: str,
    job_ids: Sequence[str],
    against: str | None,
    *,
    sweep_id: str | None = None,
    num_left_out: int = 0,
) -> Comparison:
    if against is not None and against not in job_ids:
        raise InvalidRequest(f"{against} is none of the jobs that are compared.")
    runs = gather(backend, project_id, job_ids)
    front = pareto_front([point for run in runs for point in run.plotted])
    settings = differing_settings(runs)
    other = _other(runs, against)
    return Comparison(
        sweep_id=sweep_id,
        jobs=[_view(run, front, settings) for run in runs],
        front=front,
        win_rates=backend.database.read(lambda session: find_win_rates(session, project_id, runs)),
        recommended=_recommend(runs),
        against=other.job_id if other else None,
        pairs_dataset_id=other.pairs_dataset_id if other else None,
        differences=[_difference(run, other) for run in runs if run is not other] if other else [],
        settings=settings,
        data=differing_data(runs),
        code=differing_code(runs),
        num_left_out=num_left_out,
    )


def _other(runs: Sequence[ComparedRun], against: str | None) -> ComparedRun | None:
    """Return the run that the others are compared with: the one asked for, else the one of most reward accuracy."""
    if against is not None:
        return next(run for run in runs if run.job_id == against)
    judged = [run for run in runs if run.margins and run.accuracy is not None]
    return max(judged, key=lambda run: run.accuracy or 0.0, default=None)


def _recommend(runs: Sequence[ComparedRun]) -> Recommendation:
    job_id, reason = choose(runs)
    return Recommendation(job_id=job_id, reason=reason)


def _view(run: ComparedRun, front: Sequence[Point], settings: Sequence[Differing]) -> ComparedJob:
    on_front = {point.step for point in front if point.job_id == run.job_id}
    points = [
        PolicyPoint(
            step=item.step,
            kl=item.kl,
            reward_accuracy=item.accuracy,
            reward_margin=item.margin,
            loss=item.loss,
            is_published=item.step == run.published_step,
            is_on_front=item.step in on_front,
        )
        for item in run.evaluations
    ]
    return ComparedJob(
        job_id=run.job_id,
        name=run.name,
        status=run.status,
        beta=run.spec.get("beta"),
        settings={item.name: item.values[run.job_id] for item in settings},
        held_out=run.held_out,
        points=points,
    )


def _difference(run: ComparedRun, other: ComparedRun) -> Difference:
    reason = run.why_not_paired or other.why_not_paired
    if reason is None and run.held_out_rows != other.held_out_rows:
        reason = "Other rows are held out: the datasets, or the lines left out or swapped, differ."
    found = None if reason else paired_difference(run.margins, other.margins)
    if found is None:
        return Difference(
            job_id=run.job_id, num_pairs=0, reward_accuracy=None, preference_loss=None, gained=0, lost=0, changed=[],
            reason=reason or "No row is held out by both jobs: their seeds or fractions differ.",
        )  # fmt: skip
    num_of_line = Counter(line for line, _ in run.margins)
    return Difference(
        job_id=run.job_id,
        num_pairs=found.num_pairs,
        reward_accuracy=found.accuracy,
        preference_loss=found.loss,
        gained=found.gained,
        lost=found.lost,
        changed=[
            ChangedPair(
                line=pair[0],
                place=pair[1],
                num_of_line=num_of_line[pair[0]],
                margin=run.margins[pair],
                margin_of_other=other.margins[pair],
            )
            for pair in changed_sides(run.margins, other.margins, MAX_CHANGED)
        ],
        reason=None,
    )
