"""Statistics of the whole service for its operator's monitoring, counted from the database by any process."""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from core.database.repositories import object_checks
from core.database.repositories import statistics as rows
from core.domain.training import metric_names as names
from core.services.operations.roster import ProcessView, list_processes
from core.services.transactions import reads

WAIT_BOUNDS_SECONDS = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0)
MAX_RUNNING = 200
"""Running jobs that get a figure of their own."""


@dataclass(frozen=True, kw_only=True)
class RunningJob:
    job_id: str
    stage: str
    step_seconds: float | None
    tokens_per_second: float | None


@dataclass(frozen=True, kw_only=True)
class ServiceStatistics:
    jobs_by_status: dict[str, int]
    attempts_by_outcome: dict[str, int]
    waits: list[int]
    """Started jobs that waited at most `WAIT_BOUNDS_SECONDS[i]`; last, all started jobs."""
    sum_of_waits_seconds: float
    oldest_queued_seconds: float
    num_lost_objects: int
    """Objects that rows name and the store has lost, as far as the slow check has looked."""
    running: list[RunningJob]
    processes: list[ProcessView]


@reads
def read_statistics(session: Session) -> ServiceStatistics:
    """Count over all projects."""
    return ServiceStatistics(
        jobs_by_status=rows.count_jobs(session),
        attempts_by_outcome=rows.count_attempts(session),
        waits=rows.queue_waits(session, WAIT_BOUNDS_SECONDS),
        sum_of_waits_seconds=rows.sum_of_queue_waits(session),
        num_lost_objects=object_checks.count_lost(session),
        oldest_queued_seconds=rows.oldest_queued_seconds(session),
        running=[
            _running(job_id, stage.value, values)
            for job_id, stage, values in rows.newest_points_of_running(session, MAX_RUNNING)
        ],
        processes=list_processes(session),
    )


def _running(job_id: str, stage: str, values: dict[str, float | None]) -> RunningJob:
    tokens, speed = values.get(names.NUM_TOKENS), values.get(names.TOKENS_PER_SECOND)
    return RunningJob(
        job_id=job_id, stage=stage, step_seconds=tokens / speed if tokens and speed else None, tokens_per_second=speed
    )
