"""Rows of what runs: processes, running jobs, and the queue of each project."""

from collections.abc import Sequence

from sqlalchemy import Row, func, select
from sqlalchemy.orm import Session

from core.database.columns import seconds_since
from core.database.tables.jobs import Attempt, Job
from core.database.tables.measurements import WorkerPresence
from core.domain.jobs.job_state import JobStatus


def list_processes(session: Session, limit: int) -> Sequence[Row[WorkerPresence, float]]:
    """Return (process, seconds since its last sign of life), those seen last first."""
    silent = seconds_since(WorkerPresence.seen_at)
    statement = select(WorkerPresence, silent).order_by(WorkerPresence.seen_at.desc(), WorkerPresence.name).limit(limit)
    return session.execute(statement).all()


def list_running(session: Session, limit: int) -> Sequence[Row[Job, Attempt]]:
    """Return the running jobs, each with its attempt."""
    statement = (
        select(Job, Attempt)
        .join(Attempt, (Attempt.job_id == Job.id) & (Attempt.attempt == Job.attempt))
        .where(Job.status == JobStatus.RUNNING)
        .order_by(Job.id)
        .limit(limit)
    )
    return session.execute(statement).all()


def count_by_project(session: Session) -> Sequence[Row[str, int, int, float | None]]:
    """Return (project, queued jobs, running jobs, age of its oldest queued one) of projects with any."""
    is_queued, is_running = Job.status == JobStatus.QUEUED, Job.status == JobStatus.RUNNING
    oldest = func.max(seconds_since(Job.created_at)).filter(is_queued)
    statement = (
        select(Job.project_id, func.count().filter(is_queued), func.count().filter(is_running), oldest)
        .where(is_queued | is_running)
        .group_by(Job.project_id)
        .order_by(Job.project_id)
    )
    return session.execute(statement).all()
