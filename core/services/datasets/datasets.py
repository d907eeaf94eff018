"""Datasets: accepted or refused whole, read in pages, deleted when no live job needs them."""

from functools import partial
from typing import Any

import orjson
import structlog
from sqlalchemy.orm import Session

from core.database.repositories import datasets as dataset_rows
from core.database.repositories import garbage
from core.database.repositories import jobs as job_rows
from core.database.tables.datasets import Dataset, DatasetStatus
from core.domain.errors import Conflict, InvalidRequest, NotFound
from core.services.access import audit
from core.services.backend import Backend
from core.services.cursors import BAD_CURSOR, decode_cursor, decode_offset, encode_cursor
from core.services.data_warnings import warnings_of
from core.services.datasets.row_pages import MAX_PAGE_BYTES, RowsQuery, read_page
from core.services.views import DatasetView, Page
from core.storage import keys
from core.storage.object_store import ObjectStore, read_stored

MAX_EXPIRED = 20
"""Datasets deleted in one pass of the sweeper."""

_log = structlog.get_logger(__name__)


class DatasetNotFound(NotFound):
    code = "dataset-not-found"
    title = "There is no such dataset"


class DatasetNotReady(Conflict):
    code = "dataset-not-ready"
    title = "The dataset is not ready"


class DatasetInUse(Conflict):
    code = "dataset-in-use"
    title = "A job still needs the dataset"


def get(backend: Backend, project_id: str, dataset_id: str) -> DatasetView:
    return view(find(backend, project_id, dataset_id))


def list_page(backend: Backend, project_id: str, *, limit: int = 20, cursor: str | None = None) -> Page[DatasetView]:
    """Return a page of datasets, newest first."""
    before = decode_cursor(cursor) if cursor else None
    rows = backend.database.read(
        lambda session: dataset_rows.list_datasets(session, project_id, before=before, limit=limit + 1)
    )
    shown = rows[:limit]
    is_more = len(rows) > limit
    return Page(data=[view(row) for row in shown], next_cursor=encode_cursor(shown[-1].id) if is_more else None)


def list_oldest_first(backend: Backend, project_id: str, *, limit: int, after: str | None) -> list[DatasetView]:
    """Those that were made after the dataset `after`."""
    rows = backend.database.read(
        lambda session: dataset_rows.list_oldest_first(session, project_id, after=after, limit=limit)
    )
    return [view(row) for row in rows]


def list_rows(
    backend: Backend, project_id: str, dataset_id: str, query: RowsQuery | None = None
) -> Page[dict[str, Any]]:
    """Return normalised rows in the order of the file."""
    require_ready(backend, project_id, dataset_id)
    return read_page(backend.store, keys.dataset_rows(project_id, dataset_id), query or RowsQuery())


def require_ready(backend: Backend, project_id: str, dataset_id: str) -> None:
    """Return a dataset that is ready; raises DatasetNotFound, DatasetNotReady."""
    dataset = find(backend, project_id, dataset_id)
    if dataset.status is not DatasetStatus.READY:
        raise DatasetNotReady(f"{dataset_id} is {dataset.status.value}.")


def is_ready(backend: Backend, project_id: str, dataset_id: str) -> bool:
    """Tell whether there is such a dataset, checked and accepted."""
    row = backend.database.read(lambda session: dataset_rows.find_dataset(session, project_id, dataset_id))
    return row is not None and row.status is DatasetStatus.READY


def list_issues(
    backend: Backend, project_id: str, dataset_id: str, *, limit: int = 20, cursor: str | None = None
) -> Page[dict[str, Any]]:
    """Return every issue; of a refused dataset those that its report holds."""
    dataset = find(backend, project_id, dataset_id)
    offset = decode_offset(cursor)
    if dataset.status is DatasetStatus.READY:
        return _read_lines(backend.store, keys.dataset_issues(project_id, dataset_id), limit, offset)
    issues: list[dict[str, Any]] = dataset.report.get("issues", [])
    is_more = offset + limit < len(issues)
    return Page(
        data=issues[offset : offset + limit], next_cursor=encode_cursor(str(offset + limit)) if is_more else None
    )


def patch(backend: Backend, project_id: str, dataset_id: str, changes: dict[str, Any]) -> DatasetView:
    """Change `name` (None: the file's) or `metadata`, as far as `changes` holds them."""

    def work(session: Session) -> DatasetView:
        dataset = dataset_rows.lock_dataset(session, project_id, dataset_id)
        if dataset is None:
            raise DatasetNotFound(f"There is no dataset {dataset_id}.")
        if "name" in changes:
            dataset.name = changes["name"] or dataset.filename
        dataset.user_metadata = changes.get("metadata", dataset.user_metadata)
        session.flush()
        audit.note(session, project_id, "dataset.patch", dataset_id, changed=sorted(changes))
        return view(dataset)

    return backend.database.write(work)


def delete(backend: Backend, project_id: str, dataset_id: str) -> None:
    """Delete a dataset. Raises DatasetInUse while an unfinished job reads it."""
    was_here = False

    def work(session: Session) -> None:
        nonlocal was_here
        dataset = dataset_rows.lock_dataset(session, project_id, dataset_id)
        if dataset is None and was_here:
            return  # the answer to the commit was lost
        if dataset is None:
            raise DatasetNotFound(f"There is no dataset {dataset_id}.")
        was_here = True
        user = job_rows.find_live_user_of_dataset(session, dataset_id)
        if user is not None:
            raise DatasetInUse(f"{user} reads it and has not finished; cancel that job, or wait until it has ended.")
        garbage.add_garbage(session, project_id, keys.dataset_prefix(project_id, dataset_id), "dataset deleted")
        dataset_rows.delete_dataset(session, dataset)
        audit.note(session, project_id, "dataset.delete", dataset_id)

    backend.database.write(work)


def delete_expired(backend: Backend) -> int:
    """Delete datasets whose time is over and that no live job reads; return how many."""
    found = backend.database.read(lambda session: dataset_rows.list_expired(session, MAX_EXPIRED))

    def work(session: Session, project_id: str, dataset_id: str) -> bool:
        dataset = dataset_rows.lock_dataset(session, project_id, dataset_id)
        if dataset is None or job_rows.find_live_user_of_dataset(session, dataset_id) is not None:
            return False
        garbage.add_garbage(session, project_id, keys.dataset_prefix(project_id, dataset_id), "dataset expired")
        dataset_rows.delete_dataset(session, dataset)
        return True

    num_deleted = 0
    for project_id, dataset_id in found:
        if backend.database.write(partial(work, project_id=project_id, dataset_id=dataset_id)):
            num_deleted += 1
            _log.info("dataset_expired", dataset_id=dataset_id)
    return num_deleted


def view(row: Dataset) -> DatasetView:
    return DatasetView(
        id=row.id,
        name=row.name,
        status=row.status.value,
        kind=row.kind.value,
        format=row.format,
        sha256=row.sha256,
        num_bytes=row.num_bytes,
        num_rows=row.num_rows,
        num_accepted=row.num_accepted,
        num_rejected=row.num_rejected,
        num_set_aside=row.num_set_aside,
        report=row.report,
        metadata=row.user_metadata,
        rereading=row.rereading,
        warnings=warnings_of(row),
        expires_at=row.expires_at,
        created_at=row.created_at,
    )


def find(backend: Backend, project_id: str, dataset_id: str) -> Dataset:
    row = backend.database.read(lambda session: dataset_rows.find_dataset(session, project_id, dataset_id))
    if row is None:
        raise DatasetNotFound(f"There is no dataset {dataset_id}.")
    return row


def _read_lines(
    store: ObjectStore, key: str, limit: int, offset: int, max_bytes: int = MAX_PAGE_BYTES
) -> Page[dict[str, Any]]:
    """Read whole lines from an offset: at most `limit`, and at most a page of bytes but for the first."""
    lines: list[bytes] = []
    rest, position = b"", offset
    for chunk in read_stored(store, key, offset):
        *whole, rest = (rest + chunk).split(b"\n")
        lines += whole
        if len(lines) > limit or sum(map(len, lines)) > max_bytes:
            break
    shown: list[bytes] = []
    for line in lines[:limit]:
        if shown and position - offset + len(line) > max_bytes:
            break
        shown.append(line)
        position += len(line) + 1
    is_more = len(shown) < len(lines)
    try:
        data = [orjson.loads(line) for line in shown]
    except orjson.JSONDecodeError:
        raise InvalidRequest(BAD_CURSOR) from None
    return Page(data=data, next_cursor=encode_cursor(str(position)) if is_more else None)
