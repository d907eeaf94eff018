"""Rows of what runs: processes, running jobs, and the queue of each project."""

from collections.abc import Sequence

from sqlalchemy import Row, func, select
from sqlalchemy.orm import Session

from core.database.columns import seconds_since
from core.database.tables.gangs import GangMember
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


def list_gang_members(session: Session, limit: int) -> Sequence[Row[GangMember, Job]]:
    """Return workers that wait for the other nodes of a job, or are a node of a running one, each with the job."""
    statement = select(GangMember, Job).join(Job, Job.id == GangMember.job_id).order_by(GangMember.worker).limit(limit)
    return session.execute(statement).all()


def largest_queued_gang(session: Session) -> tuple[str, int] | None:
    """Find the queued job that takes the most workers at a time, if one takes several; return its id and how many."""
    statement = select(Job.id, Job.nodes).where(Job.status == JobStatus.QUEUED, Job.nodes > 1)
    row = session.execute(statement.order_by(Job.nodes.desc(), Job.id).limit(1)).one_or_none()
    return None if row is None else (row.id, row.nodes)
