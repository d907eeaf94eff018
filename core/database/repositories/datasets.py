"""Rows of datasets in the database."""

from collections.abc import Sequence

from sqlalchemy import delete, exists, or_, select, update
from sqlalchemy.orm import Session

from core.database.columns import database_after, database_now
from core.database.tables.datasets import Dataset, DatasetStatus
from core.database.tables.jobs import Job
from core.domain.jobs.job_state import FINAL_STATUSES


def find_dataset(session: Session, project_id: str, dataset_id: str) -> Dataset | None:
    return session.scalar(select(Dataset).where(Dataset.id == dataset_id, Dataset.project_id == project_id))


def lock_dataset(session: Session, project_id: str, dataset_id: str) -> Dataset | None:
    statement = select(Dataset).where(Dataset.id == dataset_id, Dataset.project_id == project_id)
    return session.scalar(statement.with_for_update().execution_options(populate_existing=True))


def share_dataset(session: Session, project_id: str, dataset_id: str) -> Dataset | None:
    """Protect a dataset from deletion until the transaction ends."""
    statement = select(Dataset).where(Dataset.id == dataset_id, Dataset.project_id == project_id)
    return session.scalar(statement.with_for_update(read=True).execution_options(populate_existing=True))


def list_datasets(session: Session, project_id: str, *, before: str | None, limit: int) -> list[Dataset]:
    """Return datasets older than the id `before`, newest first."""
    statement = select(Dataset).where(Dataset.project_id == project_id)
    if before is not None:
        statement = statement.where(Dataset.id < before)
    return list(session.scalars(statement.order_by(Dataset.id.desc()).limit(limit)))


def list_oldest_first(session: Session, project_id: str, *, after: str | None, limit: int) -> list[Dataset]:
    """Those newer than the id `after`."""
    statement = select(Dataset).where(Dataset.project_id == project_id)
    if after is not None:
        statement = statement.where(Dataset.id > after)
    return list(session.scalars(statement.order_by(Dataset.id).limit(limit)))


def list_expired(session: Session, limit: int) -> list[tuple[str, str]]:
    """Return project and id of datasets whose time is over and that no unfinished job reads, the longest ago first."""
    readers = (Job.dataset_id, Job.sft_dataset_id, Job.validation_dataset_id)
    is_read = or_(*(exists().where(column == Dataset.id, Job.status.not_in(FINAL_STATUSES)) for column in readers))
    statement = select(Dataset.project_id, Dataset.id).where(Dataset.expires_at < database_now(), ~is_read)
    return [
        (project_id, dataset_id)
        for project_id, dataset_id in session.execute(statement.order_by(Dataset.expires_at).limit(limit))
    ]


def is_expired(session: Session, dataset: Dataset) -> bool:
    """Whether its time is over, by the database's clock."""
    statement = select(exists().where(Dataset.id == dataset.id, Dataset.expires_at < database_now()))
    return dataset.expires_at is not None and bool(session.scalar(statement))


def find_outdated(session: Session, reader_version: int) -> Dataset | None:
    """Find the newest ready dataset that was read, and last compared, by an older reader."""
    is_older = or_(Dataset.reader_version.is_(None), Dataset.reader_version < reader_version)
    statement = select(Dataset).where(Dataset.status == DatasetStatus.READY, is_older)
    return session.scalar(statement.order_by(Dataset.id.desc()).limit(1))


def delete_dataset(session: Session, dataset: Dataset) -> None:
    session.execute(delete(Dataset).where(Dataset.id == dataset.id))


def renew_processing(session: Session, owner: str, dataset_ids: Sequence[str], lease_seconds: float) -> None:
    held = (Dataset.lease_owner == owner, Dataset.id.in_(dataset_ids))
    statement = update(Dataset).where(*held).values(lease_expires_at=database_after(lease_seconds))
    session.execute(statement.execution_options(synchronize_session=False))


def take_abandoned(session: Session, owner: str, lease_seconds: float, limit: int) -> list[Dataset]:
    """Lease to `owner` datasets whose checking process is gone."""
    gone = (Dataset.status == DatasetStatus.PROCESSING, Dataset.lease_expires_at < database_now())
    statement = select(Dataset).where(*gone).order_by(Dataset.id).limit(limit).with_for_update(skip_locked=True)
    datasets = list(session.scalars(statement))
    for dataset in datasets:
        dataset.lease_owner = owner
        dataset.lease_expires_at = database_after(lease_seconds)
        dataset.num_tries += 1
    return datasets
