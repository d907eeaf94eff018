"""Place in the queue of a job that is not queued yet, and when a worker would be free for it."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from core.database.repositories import attempts as attempt_rows
from core.database.repositories import measurements
from core.database.repositories.positions import queue_positions
from core.database.tables.jobs import Job
from core.domain.estimates.speeds import Interval
from core.domain.jobs.job_state import JobStatus
from core.services.estimates import workers

MAX_JOBS = 200
"""A longer queue has no start time."""
_LAST_ID = "job_~"
"""Behind every job's id."""

TOO_LONG = f"More than {MAX_JOBS} jobs are before it."
NOBODY = "No worker that trains is alive."


@dataclass(frozen=True, kw_only=True)
class QueuePlace:
    position: int
    """Position it would have; 1 is next."""
    starts_in_seconds: Interval | None
    reason: str | None
    """Why there is no start time; null where there is one."""


def place_of_next(session: Session, project_id: str, priority: int) -> QueuePlace:
    """Return the place of a job that would be queued now."""
    next_job = Job(id=_LAST_ID, project_id=project_id, priority=priority)
    position = queue_positions(session, [next_job])[_LAST_ID]
    num_workers = sum(item.num_workers for item in workers.list_classes(session))
    if not num_workers:
        return QueuePlace(position=position, starts_in_seconds=None, reason=NOBODY)
    if position > MAX_JOBS:
        return QueuePlace(position=position, starts_in_seconds=None, reason=TOO_LONG)
    active = measurements.list_active(session, MAX_JOBS)
    running = [job for job in active if job.status is JobStatus.RUNNING]
    ahead = [job for job in active if job.status is JobStatus.QUEUED][: position - 1]
    now = attempt_rows.database_time(session)
    ends: list[Interval | None] = []
    for job in running:
        whole = _seconds(job)
        elapsed = (now - (job.attempt_started_at or now)).total_seconds()
        ends.append(None if whole is None else whole.after(elapsed))
    times = [_seconds(job) for job in ahead]
    num_unknown = (ends + times).count(None) if len(running) >= num_workers or ahead else 0
    if num_unknown:
        reason = f"{num_unknown} of the jobs before it have no estimate."
        return QueuePlace(position=position, starts_in_seconds=None, reason=reason)
    starts = first_free([item for item in ends if item], [item for item in times if item], num_workers)
    return QueuePlace(position=position, starts_in_seconds=starts, reason=None)


def first_free(running: Sequence[Interval], ahead: Sequence[Interval], num_workers: int) -> Interval:
    """Return when a worker is free, once all jobs ahead have begun in their order."""
    low = _first_free([item.low for item in running], [item.low for item in ahead], num_workers)
    high = _first_free([item.high for item in running], [item.high for item in ahead], num_workers)
    return Interval(low=low, high=high)


def _first_free(running: Sequence[float], ahead: Sequence[float], num_workers: int) -> float:
    free = sorted(running)[-num_workers:]
    free = [0.0] * (num_workers - len(free)) + free
    heapq.heapify(free)
    for seconds in ahead:
        heapq.heappush(free, heapq.heappop(free) + seconds)
    return round(free[0], 1)


def _seconds(job: Job) -> Interval | None:
    found = (job.estimate or {}).get("seconds")
    return None if found is None else Interval(**found)
