"""Statistics of all jobs, for operators."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core.database.columns import seconds_since
from core.database.tables.jobs import Attempt, Job
from core.database.tables.records import MetricPoint
from core.domain.jobs.job_state import JobStatus

_WAITED = seconds_since(Job.created_at) - seconds_since(Job.started_at)
"""Seconds from submission to the first claim."""


def count_jobs(session: Session) -> dict[str, int]:
    rows = session.execute(select(Job.status, func.count()).group_by(Job.status))
    return {row[0].value: row[1] for row in rows}


def count_attempts(session: Session) -> dict[str, int]:
    """Count ended attempts by outcome."""
    ended = Attempt.outcome.is_not(None)
    rows = session.execute(select(Attempt.outcome, func.count()).where(ended).group_by(Attempt.outcome))
    return {outcome.value: count for outcome, count in rows if outcome is not None}


def queue_waits(session: Session, bounds: Sequence[float]) -> list[int]:
    """Count started jobs that had waited at most so many seconds, for each bound; then all of them."""
    counts = [func.count().filter(bound >= _WAITED) for bound in bounds]
    row = session.execute(select(*counts, func.count()).where(Job.started_at.is_not(None))).one()
    return list(row)


def sum_of_queue_waits(session: Session) -> float:
    total = session.scalar(select(func.coalesce(func.sum(_WAITED), 0.0)).where(Job.started_at.is_not(None)))
    return float(total or 0.0)


def oldest_queued_seconds(session: Session) -> float:
    age = session.scalar(select(func.max(seconds_since(Job.created_at))).where(Job.status == JobStatus.QUEUED))
    return float(age or 0.0)


def newest_points_of_running(session: Session, limit: int) -> list[Any]:
    """Return rows (job_id, stage, values): the newest train point of each running job."""
    newest = (
        select(func.max(MetricPoint.seq))
        .where(MetricPoint.job_id == Job.id, MetricPoint.split == "train")
        .correlate(Job)
        .scalar_subquery()
    )
    statement = (
        select(Job.id, MetricPoint.stage, MetricPoint.values)
        .join(MetricPoint, (MetricPoint.job_id == Job.id) & (MetricPoint.seq == newest))
        .where(Job.status == JobStatus.RUNNING)
        .order_by(Job.id)
        .limit(limit)
    )
    return list(session.execute(statement))
