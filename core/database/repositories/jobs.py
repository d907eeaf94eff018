"""Job rows: reading, inserting, locking, fencing."""

from collections.abc import Collection, Sequence

from sqlalchemy import Row, delete, or_, select, update
from sqlalchemy.orm import Session, load_only

from core.database.columns import database_after, database_now
from core.database.repositories.events import EventDraft, append_event
from core.database.schema import JOB_TABLES
from core.database.tables.jobs import Job, JobStage
from core.domain.errors import Fenced
from core.domain.jobs.job_queries import CurveHead
from core.domain.jobs.job_state import FINAL_STATUSES, JobStatus


def insert_job(session: Session, job: Job, event: EventDraft) -> None:
    session.add(job)
    session.flush()
    append_event(session, job, event, to_status=job.status)


def find_job(session: Session, project_id: str, job_id: str) -> Job | None:
    return session.scalar(select(Job).where(Job.id == job_id, Job.project_id == project_id))


def find_jobs(session: Session, project_id: str, job_ids: Collection[str]) -> dict[str, Job]:
    """Return the jobs that are there, by id."""
    statement = select(Job).where(Job.id.in_(job_ids), Job.project_id == project_id)
    return {job.id: job for job in session.scalars(statement)}


def find_curve_head(session: Session, project_id: str, job_id: str) -> CurveHead | None:
    columns = select(Job.status, Job.last_metric_seq, Job.rewind_seq)
    row = session.execute(columns.where(Job.id == job_id, Job.project_id == project_id)).one_or_none()
    return None if row is None else CurveHead(*row)


def lock_job(session: Session, job_id: str, project_id: str | None = None, *, skip_locked: bool = False) -> Job | None:
    """Return the row, locked until the transaction ends; None also where a row locked by another is skipped."""
    statement = select(Job).where(Job.id == job_id)
    if project_id is not None:
        statement = statement.where(Job.project_id == project_id)
    return session.scalar(statement.with_for_update(skip_locked=skip_locked).execution_options(populate_existing=True))


def list_heads(session: Session, job_ids: Collection[str]) -> list[Job]:
    """Return jobs without their large columns."""
    columns = load_only(
        Job.status,
        Job.desired,
        Job.stage,
        Job.step,
        Job.total_steps,
        Job.last_metric_seq,
        Job.rewind_seq,
        Job.last_event_seq,
        raiseload=True,
    )
    return list(session.scalars(select(Job).where(Job.id.in_(job_ids)).options(columns)))


def list_stages(session: Session, job_ids: Collection[str]) -> list[JobStage]:
    return list(session.scalars(select(JobStage).where(JobStage.job_id.in_(job_ids))))


def fence(session: Session, job_id: str, attempt: int, token: str, lease_seconds: float) -> Job:
    """Lock the row for a write of this attempt, and renew its lease. Raises Fenced: stop at once.

    The number alone would not do: a database that was put back to an earlier copy, or a replica that was promoted
    before it had heard of the claim, gives the same number to another worker.
    """
    statement = (
        update(Job)
        .where(Job.id == job_id, Job.attempt == attempt, Job.claim_token == token, Job.status == JobStatus.RUNNING)
        .values(heartbeat_seq=Job.heartbeat_seq + 1, lease_expires_at=database_after(lease_seconds))
        .returning(Job)
        .execution_options(synchronize_session=False, populate_existing=True)
    )
    job = session.scalar(statement)
    if job is None:
        raise Fenced(f"Attempt {attempt} of {job_id} no longer holds the job.")
    return job


def list_leases(session: Session, *, owner: str | None, limit: int) -> Sequence[Row[str, int, int, bool]]:
    """Return (job, attempt, heartbeat_seq, has expired) of running jobs; only those of one owner if given."""
    has_expired = (Job.lease_expires_at < database_now()).label("has_expired")
    statement = select(Job.id, Job.attempt, Job.heartbeat_seq, has_expired).where(Job.status == JobStatus.RUNNING)
    if owner is not None:
        statement = statement.where(Job.lease_owner == owner)
    return session.execute(statement.order_by(Job.lease_expires_at).limit(limit)).all()


def find_live_user_of_dataset(session: Session, dataset_id: str) -> str | None:
    """Find an unfinished job that reads the dataset."""
    uses = or_(Job.dataset_id == dataset_id, Job.sft_dataset_id == dataset_id, Job.validation_dataset_id == dataset_id)
    return session.scalar(select(Job.id).where(uses, Job.status.not_in(FINAL_STATUSES)).limit(1))


def find_live_user_of_job(session: Session, job_id: str) -> str | None:
    """Find an unfinished job that starts from this job's policy."""
    statement = select(Job.id).where(Job.base_job_id == job_id, Job.status.not_in(FINAL_STATUSES))
    return session.scalar(statement.limit(1))


def delete_job(session: Session, job_id: str) -> None:
    """Delete the row and all that depends on it."""
    session.flush()
    for table in JOB_TABLES:
        session.execute(delete(table).where(table.job_id == job_id).execution_options(synchronize_session=False))
    session.execute(delete(Job).where(Job.id == job_id).execution_options(synchronize_session=False))
    session.expunge_all()
