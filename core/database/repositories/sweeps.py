"""Rows of sweeps and their members."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from core.database.columns import database_now
from core.database.tables.jobs import Job, JobStage
from core.database.tables.objects import StageOutput
from core.database.tables.records import MetricPoint
from core.database.tables.sweeps import Sweep, SweepEvent, SweepMember


@dataclass(frozen=True, kw_only=True)
class SweepEventDraft:
    kind: str
    message: str
    level: Literal["info", "warning"] = "info"
    data: dict[str, Any] = field(default_factory=dict)


def count_open(session: Session, project_id: str) -> int:
    statement = select(Sweep.id).where(Sweep.project_id == project_id, Sweep.finished_at.is_(None))
    return len(list(session.scalars(statement)))


def list_open(session: Session, limit: int, *, after: str) -> list[str]:
    """Return the ids of sweeps that have not ended, the oldest first, those newer than the id `after`."""
    statement = select(Sweep.id).where(Sweep.finished_at.is_(None), Sweep.id > after)
    return list(session.scalars(statement.order_by(Sweep.id).limit(limit)))


def list_members(session: Session, sweep_ids: Collection[str]) -> list[SweepMember]:
    statement = select(SweepMember).where(SweepMember.sweep_id.in_(sweep_ids))
    return list(session.scalars(statement.order_by(SweepMember.sweep_id, SweepMember.position)))


def find_jobs(session: Session, job_ids: Sequence[str]) -> dict[str, Job]:
    return {job.id: job for job in session.scalars(select(Job).where(Job.id.in_(job_ids)))}


def list_made_stages(session: Session, job_ids: Sequence[str]) -> set[tuple[str, str]]:
    """Return jobs with their stages whose output is stored, or that they have taken over or skipped."""
    outputs = select(StageOutput.job_id, StageOutput.stage).where(StageOutput.job_id.in_(job_ids))
    is_left_out = JobStage.status.in_(("reused", "skipped"))
    taken = select(JobStage.job_id, JobStage.stage).where(JobStage.job_id.in_(job_ids), is_left_out)
    return {(job_id, stage.value) for query in (outputs, taken) for job_id, stage in session.execute(query)}


def newest_validation(session: Session, job_id: str) -> tuple[int, dict[str, Any]] | None:
    """Return the step and the values of the job's newest evaluation; None before the first one."""
    is_mine = (MetricPoint.job_id == job_id, MetricPoint.split == "validation")
    statement = select(MetricPoint.step, MetricPoint.values).where(*is_mine)
    row = session.execute(statement.order_by(MetricPoint.seq.desc()).limit(1)).one_or_none()
    return None if row is None else (row[0], row[1])


def add_event(session: Session, sweep: Sweep, event: SweepEventDraft) -> None:
    """Append an event; the caller's transaction holds the lock on the sweep's row, or has just made it."""
    newest = select(func.coalesce(func.max(SweepEvent.seq), 0)).where(SweepEvent.sweep_id == sweep.id)
    row = SweepEvent(
        sweep_id=sweep.id,
        seq=session.scalars(newest).one() + 1,
        project_id=sweep.project_id,
        at=database_now(),
        level=event.level,
        kind=event.kind,
        message=event.message,
        data=event.data,
    )
    session.add(row)
    session.flush()


def list_events(session: Session, sweep_id: str, *, after: int, limit: int) -> list[SweepEvent]:
    statement = select(SweepEvent).where(SweepEvent.sweep_id == sweep_id, SweepEvent.seq > after)
    return list(session.scalars(statement.order_by(SweepEvent.seq).limit(limit)))


def delete_sweep(session: Session, sweep_id: str) -> None:
    session.execute(delete(SweepEvent).where(SweepEvent.sweep_id == sweep_id))
    session.execute(delete(SweepMember).where(SweepMember.sweep_id == sweep_id))
    session.execute(delete(Sweep).where(Sweep.id == sweep_id))
