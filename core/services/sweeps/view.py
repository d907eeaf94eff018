"""Views of sweeps, made from rows."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from core.database.repositories import sweeps as rows
from core.database.tables.jobs import Job
from core.database.tables.sweeps import Sweep, SweepMember
from core.domain.sweeps import SweepStatus, no_best_reason
from core.services.sweeps.choice import best_of, value_of
from core.services.views import from_row

NOT_SUBMITTED = "waiting"
"""Status of a member whose job is not queued yet."""
GONE = "deleted"
REFUSED = "refused"


@dataclass(frozen=True, kw_only=True)
class RungView:
    step: int | None
    value: float | None


@dataclass(frozen=True, kw_only=True)
class HalvingView:
    eta: int
    rungs: list[float]


@dataclass(frozen=True, kw_only=True)
class MemberView:
    position: int
    job_id: str
    status: str
    """Status of its job; `waiting` before it is queued, `refused` where it could not be, `deleted` afterwards."""
    overrides: dict[str, Any]
    value: float | None
    """Held-out metric of its policy; null before, and without held-out rows."""
    error: str | None
    is_dropped: bool
    """Successive halving goes on without it."""
    rungs: list[RungView]
    """Its figures at the rungs that were decided."""


@dataclass(frozen=True, kw_only=True)
class SweepView:
    id: str
    name: str | None
    status: SweepStatus
    metric: str
    max_parallel: int
    num_members: int
    counts: dict[str, int]
    halving: HalvingView | None
    best_job_id: str | None
    no_best_reason: str | None
    """Why there can be no best member; None where there is one, or may be."""
    members: list[MemberView]
    requested: dict[str, Any]
    metadata: dict[str, str]
    created_at: datetime
    finished_at: datetime | None


def view_sweeps(session: Session, found: Sequence[Sweep]) -> list[SweepView]:
    members: dict[str, list[SweepMember]] = {sweep.id: [] for sweep in found}
    for member in rows.list_members(session, list(members)):
        members[member.sweep_id].append(member)
    jobs = rows.find_jobs(session, [member.job_id for group in members.values() for member in group])
    return [_view_one(sweep, members[sweep.id], jobs) for sweep in found]


def _view_one(sweep: Sweep, members: Sequence[SweepMember], jobs: dict[str, Job]) -> SweepView:
    views = [_view_member(member, jobs.get(member.job_id), sweep.metric) for member in members]
    best = best_of([(member.job_id, jobs[member.job_id]) for member in members if member.job_id in jobs], sweep.metric)
    return from_row(
        SweepView,
        sweep,
        num_members=len(views),
        counts=dict(Counter(view.status for view in views)),
        halving=None if sweep.halving is None else HalvingView(**sweep.halving),
        best_job_id=sweep.best_job_id or best,
        no_best_reason=no_best_reason(sweep.requested["job"], [member.overrides for member in members]),
        members=views,
        metadata=sweep.user_metadata,
    )


def _view_member(member: SweepMember, job: Job | None, metric: str) -> MemberView:
    if job is not None:
        status = job.status.value
    elif member.error_detail is not None:
        status = REFUSED
    else:
        status = GONE if member.is_submitted else NOT_SUBMITTED
    return from_row(
        MemberView,
        member,
        status=status,
        value=None if job is None else value_of(job, metric),
        error=member.error_detail,
        rungs=[RungView(**(member.rung_values or {})[rung]) for rung in sorted(member.rung_values or {}, key=int)],
    )
