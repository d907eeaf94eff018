"""Datasets: accepted or refused whole, read in pages, deleted when no live job needs them."""

from dataclasses import dataclass, replace
from typing import Any

import orjson
import structlog
from sqlalchemy.orm import Session

from core.database.repositories import datasets as dataset_rows
from core.database.repositories import garbage
from core.database.repositories import jobs as job_rows
from core.database.tables.datasets import Dataset, DatasetStatus
from core.domain.errors import Conflict, InvalidRequest, NotFound, present
from core.services.access import audit
from core.services.backend import Backend
from core.services.cursors import BAD_CURSOR, decode_cursor, decode_offset, encode_cursor
from core.services.data_warnings import warnings_of
from core.services.datasets.row_pages import MAX_PAGE_BYTES, RowsQuery, read_page
from core.services.pages import page_of, read_cursor
from core.services.transactions import deletes, reads, writes
from core.services.views import DatasetView, Page, from_row
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


class DatasetHasVersions(Conflict):
    code = "dataset-has-versions"
    title = "The first version goes with the whole dataset"


class DatasetInUse(Conflict):
    code = "dataset-in-use"
    title = "A job still needs the dataset"


def get(backend: Backend, project_id: str, name: str) -> DatasetView:
    """Return a version; by a dataset's own id, under which it is told then, the newest. Raises DatasetNotFound."""
    row = resolve(backend, project_id, name)
    return replace(view(row), id=_id_as_asked(row, name))


def _id_as_asked(row: Dataset, name: str) -> str:
    return name if "@" in name or name == row.root_id else row.public_id


@reads
def list_page(session: Session, project_id: str, *, limit: int = 20, cursor: str | None = None) -> Page[DatasetView]:
    """Return a page of datasets, newest first, each as its newest version."""
    rows = dataset_rows.list_datasets(session, project_id, before=read_cursor(cursor), limit=limit + 1)
    grown = [row.id for row in rows if row.last_version is not None]
    newest = dataset_rows.newest_versions(session, grown) if grown else {}
    return page_of(rows, limit, [replace(view(newest.get(row.id, row)), id=row.id) for row in rows[:limit]])


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
    asked = query or RowsQuery()
    place = find_place(backend, project_id, dataset_id, asked.cursor)
    _require_ready(place.row, dataset_id)
    key = keys.dataset_rows(project_id, place.row.id)
    return place.page(read_page(backend.store, key, replace(asked, cursor=place.cursor)))


def find_ready(backend: Backend, project_id: str, name: str) -> Dataset:
    """Return a version that is ready; by a dataset's own id the newest. Raises DatasetNotFound, DatasetNotReady."""
    dataset = resolve(backend, project_id, name)
    _require_ready(dataset, name)
    return dataset


def _require_ready(dataset: Dataset, name: str) -> None:
    if dataset.status is not DatasetStatus.READY:
        raise DatasetNotReady(f"{name} is {dataset.status.value}.")


def is_ready(backend: Backend, project_id: str, dataset_id: str) -> bool:
    """Tell whether there is such a dataset, checked and accepted."""
    row = backend.database.read(lambda session: dataset_rows.find_newest(session, project_id, dataset_id))
    return row is not None and row.status is DatasetStatus.READY


def list_issues(
    backend: Backend, project_id: str, dataset_id: str, *, limit: int = 20, cursor: str | None = None
) -> Page[dict[str, Any]]:
    """Return every issue; of a refused dataset those that its report holds."""
    place = find_place(backend, project_id, dataset_id, cursor)
    dataset, offset = place.row, decode_offset(place.cursor)
    if dataset.status is DatasetStatus.READY:
        key = keys.dataset_issues(project_id, dataset.id)
        return place.page(_read_lines(backend.store, key, limit, offset))
    issues: list[dict[str, Any]] = dataset.report.get("issues", [])
    is_more = offset + limit < len(issues)
    next_cursor = encode_cursor(str(offset + limit)) if is_more else None
    return place.page(Page(data=issues[offset : offset + limit], next_cursor=next_cursor))


@writes
def patch(session: Session, project_id: str, dataset_id: str, changes: dict[str, Any]) -> DatasetView:
    """Change `name` (None: the file's) or `metadata`, as far as `changes` holds them."""
    newest = dataset_rows.find_newest(session, project_id, dataset_id)
    dataset = dataset_rows.lock_dataset(session, project_id, newest.id) if newest else None
    if dataset is None:
        raise DatasetNotFound(f"There is no dataset {dataset_id}.")
    if "name" in changes:
        dataset.name = changes["name"] or dataset.filename
    dataset.user_metadata = changes.get("metadata", dataset.user_metadata)
    session.flush()
    audit.note(session, project_id, "dataset.patch", dataset_id, changed=sorted(changes))
    return replace(view(dataset), id=_id_as_asked(dataset, dataset_id))


@deletes
def delete(session: Session, project_id: str, name: str) -> None:
    """Delete a dataset with all its versions, or one version that is not the first.

    Raises DatasetInUse while an unfinished job reads one, DatasetHasVersions.
    """
    dataset = dataset_rows.lock_dataset(session, project_id, name)
    if dataset is None:
        raise DatasetNotFound(f"There is no dataset {name}.")
    versions = [dataset]
    if dataset.root_id is None:
        versions += dataset_rows.lock_later_versions(session, dataset.id)
    if len(versions) > 1 and "@" in name:
        raise DatasetHasVersions(
            f"{name} is the first version, which goes with the whole dataset: DELETE /datasets/{dataset.id}. To "
            "keep rows of a later version, merge it into a new dataset before."
        )
    for version in versions:
        user = job_rows.find_live_user_of_dataset(session, version.id)
        if user is not None:
            told = f"{user} reads {version.public_id} and has not finished"
            raise DatasetInUse(f"{told}; cancel that job, or wait until it has ended.")
        prefix = keys.dataset_prefix(project_id, version.id)
        garbage.add_garbage(session, project_id, prefix, "dataset deleted")
        dataset_rows.delete_dataset(session, version)
    audit.note(session, project_id, "dataset.delete", name)


def delete_expired(backend: Backend) -> int:
    """Delete datasets whose time is over and that no live job reads; return how many."""
    found = backend.database.read(lambda session: dataset_rows.list_expired(session, MAX_EXPIRED))

    num_deleted = 0
    for project_id, dataset_id in found:
        if _delete_if_unused(backend, project_id, dataset_id):
            num_deleted += 1
            _log.info("dataset_expired", dataset_id=dataset_id)
    return num_deleted


@writes
def _delete_if_unused(session: Session, project_id: str, dataset_id: str) -> bool:
    dataset = dataset_rows.lock_dataset(session, project_id, dataset_id)
    if dataset is None or job_rows.find_live_user_of_dataset(session, dataset_id) is not None:
        return False
    garbage.add_garbage(session, project_id, keys.dataset_prefix(project_id, dataset_id), "dataset expired")
    dataset_rows.delete_dataset(session, dataset)
    return True


def view(row: Dataset) -> DatasetView:
    return from_row(
        DatasetView,
        row,
        id=row.public_id,
        status=row.status.value,
        kind=row.kind.value,
        metadata=row.user_metadata,
        warnings=warnings_of(row),
        version=row.number,
    )


def resolve(backend: Backend, project_id: str, name: str) -> Dataset:
    """Return the row of a version; by a dataset's own id the newest that is ready. Raises DatasetNotFound."""
    row = backend.database.read(lambda session: dataset_rows.find_newest(session, project_id, name))
    return present(row, DatasetNotFound, f"There is no dataset {name}.")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Place in the rows or issues of a version: pages by a dataset's own id go on in the version that they began in."""

    row: Dataset
    cursor: str | None
    is_newest: bool
    """The dataset was asked for, not a version."""

    def page(self, page: Page[dict[str, Any]]) -> Page[dict[str, Any]]:
        """Return the page with a cursor that names the version."""
        if page.next_cursor is None or not self.is_newest or self.row.root_id is None:
            return page
        offset = decode_cursor(page.next_cursor)
        return replace(page, next_cursor=encode_cursor(f"{self.row.number}.{offset}"))


def find_place(backend: Backend, project_id: str, name: str, cursor: str | None) -> Place:
    """Find the version that a page is of. Raises DatasetNotFound, InvalidRequest for a foreign cursor."""
    is_newest = "@" not in name
    if cursor is None or not is_newest:
        return Place(row=resolve(backend, project_id, name), cursor=cursor, is_newest=is_newest)
    number, _, offset = decode_cursor(cursor).rpartition(".")
    exact = f"{name}@{number}" if number else name
    row = backend.database.read(lambda session: dataset_rows.find_dataset(session, project_id, exact))
    if row is None:
        if number:
            resolve(backend, project_id, name)
            raise InvalidRequest(BAD_CURSOR)
        raise DatasetNotFound(f"There is no dataset {name}.")
    return Place(row=row, cursor=encode_cursor(offset), is_newest=True)


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
