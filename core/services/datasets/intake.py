"""Intake of an upload: quota, known files, the check, rows and report in the store."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from core.database.columns import database_after, database_now
from core.database.repositories import datasets as dataset_rows
from core.database.repositories import garbage
from core.database.tables.datasets import Dataset, DatasetStatus
from core.datasets.check.check_process import check_in_child
from core.datasets.options import CheckOptions, Limits, ReadingOptions, check_names
from core.datasets.reading import READER_VERSION
from core.datasets.result import ISSUES_FILE, ROWS_FILE, CheckResult
from core.domain.dataset_rows import DatasetKind, DatasetOrigin
from core.domain.errors import Limited
from core.domain.issue_codes import IssueCode
from core.services.access import audit, quotas
from core.services.backend import Backend
from core.services.datasets.datasets import DatasetNotFound, view
from core.services.datasets.scratch import flushed_meanwhile, scratch_folder
from core.services.ids import new_id
from core.services.transactions import writes
from core.services.views import DatasetView
from core.settings import Settings
from core.storage import keys
from core.storage.object_store import ObjectNotFound, ObjectStore, StoreUnavailable
from core.storage.trees import file_sha256

MAX_VERSIONS = 10_000
"""Numbers of versions that a dataset can have."""
_WAITING = "nobody yet"


class TooManyVersions(Limited):
    code = "too-many-versions"
    title = "The dataset has as many versions as it may"


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """What a file of the service's own was made from."""

    how: DatasetOrigin
    root_id: str | None = None
    """First version of the dataset whose next version it becomes; None: it becomes a dataset of its own."""
    sources: Mapping[str, int] = field(default_factory=dict)
    """Rows taken of each dataset, by the name of its version."""
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Upload(ReadingOptions):
    """A complete spooled file, which stays the caller's to delete."""

    path: Path
    filename: str
    name: str | None = None
    """Default: the file's name."""
    is_kind_open: bool = False
    """The file itself decides; `kind` is tried first."""
    metadata: dict[str, str] = field(default_factory=dict)
    seconds: int | None = None
    """How long the dataset stays; none: until it is deleted."""
    held_as: str | None = None
    """The arrival or announced upload that has taken its room already."""
    lineage: Lineage | None = None
    """Where the rows of a file are from that was not uploaded."""


def create(backend: Backend, project_id: str, upload: Upload, *, dataset_id: str | None = None) -> DatasetView:
    """Check the file and store it. A refused one leaves nothing behind.

    Raises DatasetRejected with the report, DatasetTooLarge, DatasetUnsupported, QuotaExceeded; InvalidRequest for wrong
    options.
    With a `dataset_id` chosen before (see `idempotency`), a repeated call answers what is there.
    """
    chosen = dataset_id or new_id("ds")
    known = find_known(backend, project_id, dataset_id)
    if known is not None:
        return known
    options = check_options(option_fields(upload), backend.settings)
    check_names(options)
    _make_room(backend, project_id, chosen, upload)
    with scratch_folder(backend.settings, "check") as folder:
        with flushed_meanwhile(upload.path, folder / ROWS_FILE):
            judge = check_any_kind if upload.is_kind_open else check
            result = judge(backend.settings, upload.path, options, folder)
        if result.refusal is not None:
            raise result.error()
        backend.store.put_file(keys.dataset_original(project_id, chosen), upload.path, is_final=True)
        _require_stored(backend.store, keys.dataset_original(project_id, chosen), result.num_bytes)
        stored = store_results(backend.store, project_id, chosen, folder)

    def make_row() -> Dataset:
        row = _new_row(project_id, chosen, upload, sha256=result.sha256, num_bytes=result.num_bytes)
        fill_row(row, result, stored)
        return row

    return _insert(backend, project_id, chosen, make_row, upload)


def create_later(backend: Backend, project_id: str, upload: Upload, *, dataset_id: str | None = None) -> DatasetView:
    """Store the file and answer at once; `DatasetProcessor` checks it. Raises InvalidRequest for wrong options."""
    chosen = dataset_id or new_id("ds")
    known = find_known(backend, project_id, dataset_id)
    if known is not None:
        return known
    check_names(check_options(option_fields(upload), backend.settings))
    _make_room(backend, project_id, chosen, upload)
    backend.store.put_file(keys.dataset_original(project_id, chosen), upload.path, is_final=True)
    num_bytes, sha256 = upload.path.stat().st_size, file_sha256(upload.path)
    _require_stored(backend.store, keys.dataset_original(project_id, chosen), num_bytes)

    def make_row() -> Dataset:
        row = _new_row(project_id, chosen, upload, sha256=sha256, num_bytes=num_bytes)
        row.lease_owner = _WAITING
        row.lease_expires_at = database_now()
        return row

    return _insert(backend, project_id, chosen, make_row, upload)


def check(
    settings: Settings,
    source: Path,
    options: CheckOptions,
    folder: Path,
    while_waiting: Callable[[], None] = lambda: None,
) -> CheckResult:
    """Check the file in a child process; rows and issues are left in `folder`.

    `while_waiting` is called every other second; what it raises ends the check.
    """
    return check_in_child(
        source,
        options,
        folder,
        timeout_seconds=settings.check_timeout_seconds,
        memory_bytes=settings.check_memory_bytes,
        while_waiting=while_waiting,
    )


def check_any_kind(settings: Settings, source: Path, options: CheckOptions, folder: Path) -> CheckResult:
    """Judge a file whose kind is open: as the first kind that it is not refused as another of."""
    first = check(settings, source, options, folder)
    if not _is_of_another_kind(first):
        return first
    for kind in DatasetKind:
        if kind not in (options.kind, DatasetKind.RESPONSES):  # of these are only files that are sent as such
            result = check(settings, source, replace(options, kind=kind), folder)
            if not _is_of_another_kind(result):
                return result
    return first


def _is_of_another_kind(result: CheckResult) -> bool:
    return result.refusal is not None and result.refusal.code == IssueCode.WRONG_KIND


def option_fields(upload: Upload) -> dict[str, Any]:
    """Return the options of the check as stored with the row."""
    return {
        "kind": upload.kind.value,
        **({"is_kind_open": True} if upload.is_kind_open else {}),
        "format": upload.format,
        "columns": dict(upload.columns),
        "values": dict(upload.values),
        "ignore": list(upload.ignore),
        "ties": upload.ties,
        "split": upload.split,
        "on_error": upload.on_error,
        "content_encoding": upload.content_encoding,
        "filename": upload.filename,
    }


def check_options(fields: dict[str, Any], settings: Settings) -> CheckOptions:
    limits = Limits(
        max_bytes=settings.max_upload_bytes,
        max_decompressed_bytes=settings.max_decompressed_bytes,
        max_line_bytes=settings.max_line_bytes,
        max_rows=settings.max_rows,
    )
    given = {name: value for name, value in fields.items() if name != "is_kind_open"}
    return CheckOptions(**{**given, "kind": DatasetKind(fields["kind"]), "limits": limits})


@dataclass(frozen=True, kw_only=True)
class StoredRows:
    """Rows in the store, as the check wrote them."""

    rows_sha256: str
    rows_bytes: int
    issues_sha256: str


def store_results(store: ObjectStore, project_id: str, dataset_id: str, folder: Path) -> StoredRows:
    """Store rows and issues, and verify that they are there. Raises StoreUnavailable."""
    rows, issues = folder / ROWS_FILE, folder / ISSUES_FILE
    for key, path in (
        (keys.dataset_rows(project_id, dataset_id), rows),
        (keys.dataset_issues(project_id, dataset_id), issues),
    ):
        store.put_file(key, path, is_final=True)
        _require_stored(store, key, path.stat().st_size)
    return StoredRows(rows_sha256=file_sha256(rows), rows_bytes=rows.stat().st_size, issues_sha256=file_sha256(issues))


def _require_stored(store: ObjectStore, key: str, num_bytes: int) -> None:
    """Verify that the object exists before a row names it: some stores acknowledge and keep nothing."""
    try:
        is_whole = store.stat(key).num_bytes == num_bytes
    except ObjectNotFound:
        is_whole = False
    if not is_whole:
        raise StoreUnavailable("The object store does not hold what it was just given. Send the file again.")


def fill_row(row: Dataset, result: CheckResult, stored: StoredRows | None) -> None:
    """Record the result of the check and end its lease. `stored` is None exactly for a refused file."""
    if stored is not None:
        row.rows_sha256, row.rows_bytes, row.issues_sha256 = (
            stored.rows_sha256,
            stored.rows_bytes,
            stored.issues_sha256,
        )
    row.status = DatasetStatus.READY if result.refusal is None else DatasetStatus.REJECTED
    row.kind = result.kind
    # Settled: rows that are made anew, or compared, are read as the same kind.
    row.options = {name: value for name, value in row.options.items() if name != "is_kind_open"}
    row.options["kind"] = result.kind.value
    row.format = result.format or row.format
    row.num_rows = result.num_rows
    row.num_accepted = result.num_accepted
    row.num_rejected = result.num_rejected
    row.num_set_aside = result.num_set_aside
    row.report = dict(result.report)
    row.reader_version = READER_VERSION
    row.lease_owner = None
    row.lease_expires_at = None


def _new_row(project_id: str, dataset_id: str, upload: Upload, *, sha256: str, num_bytes: int) -> Dataset:
    return Dataset(
        id=dataset_id,
        project_id=project_id,
        name=upload.name or upload.filename,
        status=DatasetStatus.PROCESSING,
        kind=upload.kind,
        format=upload.format,
        filename=upload.filename,
        sha256=sha256,
        num_bytes=num_bytes,
        report={},
        options=option_fields(upload),
        user_metadata=upload.metadata,
        expires_at=None if upload.seconds is None else database_after(upload.seconds),
        created_at=database_now(),
    )


@writes
def _insert(
    session: Session, project_id: str, dataset_id: str, make_row: Callable[[], Dataset], upload: Upload
) -> DatasetView:
    row = dataset_rows.find_dataset(session, project_id, dataset_id)
    if row is None:
        row = make_row()
        quotas.require_room(session, project_id, row.num_bytes, held_as=upload.held_as)
        quotas.forget_arrival(session, upload.held_as)
        if upload.lineage is not None:
            _record_lineage(session, row, upload.lineage)
        session.add(row)
        session.flush()
        audit.note(session, project_id, "dataset.create", row.public_id, num_bytes=row.num_bytes, sha256=row.sha256)
    return view(row)


def _record_lineage(session: Session, row: Dataset, lineage: Lineage) -> None:
    """Note what the row was made from, and give it its number as a version. Raises DatasetNotFound, TooManyVersions."""
    row.made_from = {"how": lineage.how.value, "datasets": dict(lineage.sources), **lineage.detail}
    if lineage.root_id is None:
        return
    root = dataset_rows.lock_dataset(session, row.project_id, lineage.root_id)
    if root is None:
        raise DatasetNotFound(f"There is no dataset {lineage.root_id} any more.")
    if (root.last_version or 1) >= MAX_VERSIONS:
        raise TooManyVersions(f"A dataset has at most {MAX_VERSIONS:,} versions; merge the newest into a new dataset.")
    root.last_version = (root.last_version or 1) + 1
    row.root_id, row.version, row.expires_at = root.id, root.last_version, root.expires_at


@writes
def _make_room(session: Session, project_id: str, dataset_id: str, upload: Upload) -> None:
    """Check the quota before any work on the file; it is checked again when the file is recorded.

    A deleted dataset that is made again under its id takes its objects back from the collector.
    """
    quotas.require_room(session, project_id, upload.path.stat().st_size, held_as=upload.held_as)
    garbage.forget_garbage(session, keys.dataset_prefix(project_id, dataset_id))


def find_known(backend: Backend, project_id: str, dataset_id: str | None) -> DatasetView | None:
    """Return the dataset of an id that was chosen before, if it is there."""
    if dataset_id is None:
        return None
    row = backend.database.read(lambda session: dataset_rows.find_dataset(session, project_id, dataset_id))
    return view(row) if row else None
