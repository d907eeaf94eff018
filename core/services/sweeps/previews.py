"""Preview of a sweep: its members, and what they would take together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.domain.estimates.measured import stage_settings
from core.domain.estimates.speeds import Interval
from core.domain.halving import work_share
from core.domain.jobs.job_spec import JobSpec
from core.domain.jobs.job_state import Stage
from core.domain.jobs.methods import get_method
from core.domain.sweeps import (
    Overrides,
    SweepRequest,
    member_request,
    no_best_reason,
    plan_members,
    settle_request,
)
from core.domain.variants.checks import get_variant
from core.services.backend import Backend
from core.services.datasets.previews import find_token_statistics
from core.services.estimates import estimates
from core.services.estimates.estimates import Estimate
from core.services.estimates.sizes import seen_by
from core.services.jobs import jobs

_THIS_SWEEP = "an earlier member"
EVALUATION_SHARE = 0.1
"""Share of the steps between two evaluations, as `auto` has it."""
_NO_ID = "sweep_preview"


@dataclass(frozen=True, kw_only=True)
class SweepPreview:
    num_members: int
    members: list[Overrides]
    seconds: Interval | None
    """Time of all members together; null where one has none."""
    peak_memory_bytes: int | None
    """The most that one of them has."""
    num_shared: dict[str, int]
    """Number of members, by stage, that take its output over."""
    num_workers: int
    reason: str | None
    """Why there is no time; null where there is one."""
    rungs: list[float]
    """Shares of their steps at which members are compared; none where all train to their end."""
    work_share: float
    """Steps that all members take together, as a share of what they would take without rungs."""
    no_best_reason: str | None


def preview(backend: Backend, project_id: str, request: SweepRequest) -> SweepPreview:
    """Return what `sweeps.create` would make of a request. Raises InvalidRequest as it would."""
    members = plan_members(request)
    known: dict[str, list[dict[str, Any]]] = {Stage.SFT.value: [], Stage.REFERENCE.value: []}
    found: list[tuple[Estimate, str]] = []
    requests = [member_request(request.job, item, place, sweep_id=_NO_ID) for place, item in enumerate(members, 1)]
    settle_request(request, requests)
    halving = request.plan_halving(len(members)) or {"eta": 1, "rungs": []}
    for member in requests:
        previewed = jobs.preview(backend, project_id, member)
        spec = previewed.spec
        statistics = find_token_statistics(backend, project_id, spec.dataset_name, seen_by(spec))
        shared = _shared(spec, known)
        name = previewed.base_model_name
        estimate = estimates.of_spec(backend, project_id, spec, name, statistics, shared=shared)
        found.append((estimate, get_method(spec.method).last.value))
    savings = _savings(len(members), **halving)
    num_workers = sum(worker.num_workers for worker in found[0][0].workers)
    peaks = [item.peak_memory_bytes for item, _ in found]
    return SweepPreview(
        num_members=len(members),
        members=members,
        seconds=_together(found, max(1, min(num_workers, request.max_parallel, len(members))), savings),
        rungs=halving["rungs"],
        work_share=round(1 - savings.high, 4),
        peak_memory_bytes=None if None in peaks else max(peak for peak in peaks if peak is not None),
        num_shared={stage: sum(stage in item.reused_stages for item, _ in found) for stage in known},
        num_workers=num_workers,
        no_best_reason=no_best_reason(request.job.model_dump(mode="json", exclude_unset=True), members),
        reason=next((item.reason for item, _ in found if item.reason is not None), None),
    )


def _shared(spec: JobSpec, known: Mapping[str, list[dict[str, Any]]]) -> dict[str, str]:
    """Return the stages that an earlier member has made, and note those that this one will make."""
    if not spec.reuse or not get_method(spec.method).has(Stage.REFERENCE):
        return {}
    shared: dict[str, str] = {}
    for stage, made in known.items():
        if stage == Stage.SFT.value and spec.sft == "skip":
            continue
        if stage == Stage.REFERENCE.value and not get_variant(spec.variant).needs_reference:
            continue
        settings = stage_settings(spec.model_dump(), stage) | {"precision": spec.precision}
        if settings in made:
            shared[stage] = _THIS_SWEEP
        else:
            made.append(settings)
    return shared


def _savings(num_members: int, eta: int, rungs: Sequence[float]) -> Interval:
    """Return the share of all steps of the last stage that rungs save; a rung is at the next evaluation behind it."""
    late = [min(1.0, share + EVALUATION_SHARE) for share in rungs]
    return Interval(low=1 - work_share(num_members, eta, late), high=1 - work_share(num_members, eta, rungs))


def _together(found: Sequence[tuple[Estimate, str]], num_workers: int, savings: Interval) -> Interval | None:
    intervals = [_shortened(item, last, savings) for item, last in found]
    if None in intervals:
        return None
    known = [item for item in intervals if item is not None]
    return time_of_all(known, num_workers, is_shared=any(item.reused_stages for item, _ in found))


def _shortened(estimate: Estimate, last: str, savings: Interval) -> Interval | None:
    """Return a member's time, less its part of what rungs save of its last stage."""
    if estimate.seconds is None:
        return None
    stages = next((worker.stage_seconds for worker in estimate.workers if worker.stage_seconds), {})
    share = stages.get(last, 0.0) / (sum(stages.values()) or 1.0)
    low, high = estimate.seconds.low, estimate.seconds.high
    return Interval(low=low * (1 - share * savings.high), high=high * (1 - share * savings.low))


def time_of_all(intervals: Sequence[Interval], num_workers: int, *, is_shared: bool) -> Interval:
    """Return the time of jobs on so many workers, each job on one.

    Args:
        intervals: seconds of each job.
        is_shared: whether jobs wait for stages of another one.

    The high bound is Graham's for a list of jobs: the work shared out evenly, and what may be left over of the longest
    chain of jobs that wait for each other.
    """
    highs = sorted((item.high for item in intervals), reverse=True)
    chain = sum(highs[: 2 if is_shared else 1])
    low = max(sum(item.low for item in intervals) / num_workers, max(item.low for item in intervals))
    high = sum(highs) / num_workers + (1 - 1 / num_workers) * chain
    return Interval(low=round(low, 1), high=round(high, 1))
