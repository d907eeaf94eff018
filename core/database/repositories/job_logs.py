"""Parts of job logs, in the order in which they were written."""

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from core.database.tables.records import JobLogPart


def find_last_part(session: Session, job_id: str) -> JobLogPart | None:
    statement = select(JobLogPart).where(JobLogPart.job_id == job_id).order_by(JobLogPart.start_bytes.desc()).limit(1)
    return session.scalar(statement)


def list_parts(session: Session, job_id: str, *, after: int) -> list[JobLogPart]:
    """Those that end behind `after`, the oldest first."""
    statement = (
        select(JobLogPart)
        .where(JobLogPart.job_id == job_id, JobLogPart.start_bytes + JobLogPart.num_bytes > after)
        .order_by(JobLogPart.start_bytes)
    )
    return list(session.scalars(statement))


def delete_before(session: Session, job_id: str, place: int) -> None:
    """Parts that end before it."""
    session.execute(
        delete(JobLogPart)
        .where(JobLogPart.job_id == job_id, JobLogPart.start_bytes + JobLogPart.num_bytes <= place)
        .execution_options(synchronize_session=False)
    )
