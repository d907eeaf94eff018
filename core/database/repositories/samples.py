from sqlalchemy import select
from sqlalchemy.orm import Session

from core.database.tables.records import JobSample


def list_samples(session: Session, job_id: str) -> list[JobSample]:
    return list(session.scalars(select(JobSample).where(JobSample.job_id == job_id).order_by(JobSample.position)))
