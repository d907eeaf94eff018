"""Rows of datasets in the database, one for each version."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, delete, exists, false, func, or_, select, update
from sqlalchemy.orm import Session

from core.database.columns import database_after, database_now
from core.database.repositories import owned
from core.database.tables.datasets import Dataset, DatasetStatus
from core.database.tables.jobs import Job
from core.domain.jobs.job_state import FINAL_STATUSES

MAX_VERSION_DIGITS = 9


def is_named(name: str) -> ColumnElement[bool]:
    """Return the condition for the row of one version: `ds_…@<version>`, or a row's own id."""
    root_id, at, number = name.partition("@")
    if not at:
        return Dataset.id == name
    if not (number.isascii() and number.isdigit() and len(number) <= MAX_VERSION_DIGITS):
        return false()
    if int(number) == 1:
        return (Dataset.id == root_id) & Dataset.root_id.is_(None)
    return (Dataset.root_id == root_id) & (Dataset.version == int(number))


def find_dataset(session: Session, project_id: str, name: str) -> Dataset | None:
    """Find one version; a dataset's own id means its first."""
    return session.scalar(select(Dataset).where(is_named(name), Dataset.project_id == project_id))


def find_newest(session: Session, project_id: str, name: str) -> Dataset | None:
    """Find a version by its name; a dataset's own id means the newest that is ready, else the first."""
    row = find_dataset(session, project_id, name)
    if row is None or row.root_id is not None or "@" in name:
        return row
    return newest_versions(session, [row.id]).get(row.id, row)


def newest_versions(session: Session, root_ids: Sequence[str]) -> dict[str, Dataset]:
    """Return the newest ready version of each dataset that has a second one."""
    newest = (
        select(Dataset.root_id, func.max(Dataset.version).label("version"))
        .where(Dataset.root_id.in_(root_ids), Dataset.status == DatasetStatus.READY)
        .group_by(Dataset.root_id)
        .subquery()
    )
    is_newest = (Dataset.root_id == newest.c.root_id) & (Dataset.version == newest.c.version)
    return {str(row.root_id): row for row in session.scalars(select(Dataset).join(newest, is_newest))}


def list_versions(session: Session, root_id: str, *, before: int | None, limit: int) -> list[Dataset]:
    """Return the versions of a dataset, newest first, those of a smaller number than `before`."""
    number = func.coalesce(Dataset.version, 1)
    statement = select(Dataset).where(or_(Dataset.id == root_id, Dataset.root_id == root_id))
    if before is not None:
        statement = statement.where(number < before)
    return list(session.scalars(statement.order_by(number.desc()).limit(limit)))


def lock_dataset(session: Session, project_id: str, name: str) -> Dataset | None:
    statement = select(Dataset).where(is_named(name), Dataset.project_id == project_id)
    return session.scalar(statement.with_for_update().execution_options(populate_existing=True))


def lock_later_versions(session: Session, root_id: str) -> list[Dataset]:
    statement = select(Dataset).where(Dataset.root_id == root_id).order_by(Dataset.version)
    return list(session.scalars(statement.with_for_update().execution_options(populate_existing=True)))


def share_dataset(session: Session, project_id: str, dataset_id: str) -> Dataset | None:
    """Protect a dataset from deletion until the transaction ends."""
    statement = select(Dataset).where(Dataset.id == dataset_id, Dataset.project_id == project_id)
    return session.scalar(statement.with_for_update(read=True).execution_options(populate_existing=True))


def list_datasets(session: Session, project_id: str, *, before: str | None, limit: int) -> list[Dataset]:
    """Return the first versions of datasets older than the id `before`, newest first."""
    return owned.newest(session, Dataset, project_id, Dataset.root_id.is_(None), before=before, limit=limit)


def list_oldest_first(session: Session, project_id: str, *, after: str | None, limit: int) -> list[Dataset]:
    """Those newer than the id `after`, their first versions."""
    statement = select(Dataset).where(Dataset.project_id == project_id, Dataset.root_id.is_(None))
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
