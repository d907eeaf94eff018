"""Attempt and stage rows; the caller holds the lock on the job's row."""

from datetime import datetime

from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.orm import Session

from core.database.columns import database_now, seconds_since
from core.database.tables.jobs import Attempt, Job, JobStage
from core.domain.jobs.job_state import AttemptOutcome, Stage

_STAGES = tuple(Stage)


def find_attempt(session: Session, job_id: str, attempt: int) -> Attempt:
    return session.scalars(select(Attempt).where(Attempt.job_id == job_id, Attempt.attempt == attempt)).one()


def find_outcome(session: Session, job_id: str, token: str) -> AttemptOutcome | None:
    return session.scalar(select(Attempt.outcome).where(Attempt.job_id == job_id, Attempt.claim_token == token))


def is_running(session: Session, job_id: str, attempt: int, token: str) -> bool:
    """Whether the attempt may still commit uploads; `token` is its token's end, empty in keys without one."""
    started = select(Attempt.attempt).where(Attempt.job_id == job_id, Attempt.attempt == attempt)
    if token:
        started = started.where(Attempt.claim_token.endswith(token, autoescape=True))
    return session.scalar(started.where(Attempt.outcome.is_(None))) is not None


def count_newest(session: Session, job_id: str, outcome: AttemptOutcome) -> int:
    """Count the newest ended attempts that all ended in this way without a checkpoint."""
    mine = (Attempt.job_id == job_id, Attempt.outcome.is_not(None))
    others = or_(Attempt.outcome != outcome, Attempt.num_checkpoints > 0)
    last_other = select(func.coalesce(func.max(Attempt.attempt), 0)).where(*mine, others).scalar_subquery()
    return session.scalars(select(func.count()).select_from(Attempt).where(*mine, Attempt.attempt > last_other)).one()


def list_lost(session: Session, job_id: str) -> list[Attempt]:
    """Return attempts with vanished workers since the newest one with a checkpoint, newest first."""
    with_checkpoint = select(func.coalesce(func.max(Attempt.attempt), 0)).where(
        Attempt.job_id == job_id, Attempt.num_checkpoints > 0
    )
    lost = (Attempt.job_id == job_id, Attempt.outcome == AttemptOutcome.LOST)
    statement = select(Attempt).where(*lost, Attempt.attempt > with_checkpoint.scalar_subquery())
    return list(session.scalars(statement.order_by(Attempt.attempt.desc())))


def runtime_seconds(session: Session, job: Job) -> float:
    """Sum the runtime of all attempts, the running one included."""
    running = func.coalesce(seconds_since(Job.attempt_started_at), 0.0)
    return session.scalars(select(Job.runtime_seconds + running).where(Job.id == job.id)).one()


def forget_stages_beyond(session: Session, job_id: str, stage: Stage | None) -> None:
    """Reset the stages after this one to not reached; all stages without one."""
    beyond = _STAGES[_STAGES.index(stage) + 1 :] if stage else _STAGES
    session.execute(delete(JobStage).where(JobStage.job_id == job_id, JobStage.stage.in_(beyond)))


def find_stage(session: Session, job_id: str, stage: Stage) -> JobStage | None:
    return session.scalar(select(JobStage).where(JobStage.job_id == job_id, JobStage.stage == stage))


def close_stages(session: Session, job_id: str) -> None:
    """End the running stages of a job that has ended."""
    under_way = (JobStage.job_id == job_id, JobStage.status == "started")
    statement = update(JobStage).where(*under_way).values(status="finished", finished_at=database_now())
    session.execute(statement.execution_options(synchronize_session=False))


def database_time(session: Session) -> datetime:
    return session.scalars(select(database_now())).one()
