"""Datasets taken in by an older version of the reader: their file is read again, to report the differences.

The rows stay as they are: jobs that use them are repeated with the same. A dataset whose file gives other rows today
is marked, and sending the file again makes a new one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from core.database.repositories import datasets as dataset_rows
from core.database.tables.datasets import Dataset, DatasetStatus
from core.datasets.check.check_process import CheckOutOfMemory, CheckTimedOut
from core.datasets.reading import READER_VERSION, Difference, compare_rows
from core.datasets.result import ROWS_FILE
from core.domain.errors import DomainError
from core.services.backend import Backend
from core.services.datasets import intake
from core.services.datasets.scratch import scratch_folder
from core.services.transactions import reads, writes
from core.storage import keys
from core.wording import counted

_EARLIER = "An earlier version read this file"
_SEND_AGAIN = "To train on the file as it is read today, send it again."


@dataclass(frozen=True, kw_only=True)
class _Outdated:
    id: str
    project_id: str
    options: dict[str, Any]


def reread_next(backend: Backend) -> str | None:
    """Compare the newest dataset of an older version with its file; return its id, or None without one.

    Raises Unavailable. A dataset that two processes compare at once gets the same mark from both.
    """
    found = backend.database.read(lambda session: _outdated(dataset_rows.find_outdated(session, READER_VERSION)))
    if found is None:
        return None
    _record(backend, found, _compare(backend, found))
    return found.id


def reread(
    backend: Backend, project_id: str, dataset_id: str, while_waiting: Callable[[], None] = lambda: None
) -> dict[str, Any] | None:
    """The mark of a dataset, which is compared with its file first where an older version read it.

    `while_waiting` is called every other second of the check; what it raises ends it. Raises Unavailable.
    None: the rows are those that its file gives today, or the dataset is gone.
    """
    found, mark = _find(backend, project_id, dataset_id)
    if found is None:
        return mark
    mark = _compare(backend, found, while_waiting)
    _record(backend, found, mark)
    return mark


@reads
def _find(session: Session, project_id: str, dataset_id: str) -> tuple[_Outdated | None, dict[str, Any] | None]:
    row = dataset_rows.find_dataset(session, project_id, dataset_id)
    is_old = row is not None and (row.reader_version or 0) < READER_VERSION
    return _outdated(row) if is_old else None, row.rereading if row else None


def _outdated(row: Dataset | None) -> _Outdated | None:
    return None if row is None else _Outdated(id=row.id, project_id=row.project_id, options=dict(row.options))


@writes
def _record(session: Session, found: _Outdated, mark: dict[str, Any] | None) -> None:
    row = dataset_rows.lock_dataset(session, found.project_id, found.id)
    if row is not None and row.status is DatasetStatus.READY:
        row.reader_version = READER_VERSION
        row.rereading = mark


def _compare(
    backend: Backend, outdated: _Outdated, while_waiting: Callable[[], None] = lambda: None
) -> dict[str, Any] | None:
    """Return how the stored rows differ from today's; None where the file gives the same ones."""
    with scratch_folder(backend.settings, "reread") as folder:
        source, stored = folder / "original", folder / "stored.jsonl"
        try:
            backend.store.get_file(keys.dataset_original(outdated.project_id, outdated.id), source)
            backend.store.get_file(keys.dataset_rows(outdated.project_id, outdated.id), stored)
            options = intake.check_options(outdated.options, backend.settings)
            result = intake.check(backend.settings, source, options, folder, while_waiting)
        except DomainError as error:
            if error.kind in ("unavailable", "fenced"):
                raise
            if isinstance(error, CheckTimedOut | CheckOutOfMemory):
                # A busy or small machine says nothing of the file, and that is said.
                detail = f"{_EARLIER}, and could not be compared with it: {error.detail} {_SEND_AGAIN}"
                return _mark(Difference(), detail, is_refused=False)
            detail = f"{_EARLIER}; the file cannot be read any more: {error.detail}"
            return _mark(Difference(), detail, is_refused=True)
        if result.refusal is not None:
            detail = (
                f"{_EARLIER}; today the file would be refused: {result.refusal.detail} Training uses the rows as they "
                "were read then. Send the file again with what this asks for."
            )
            return _mark(Difference(), detail, is_refused=True)
        found = compare_rows(stored, folder / ROWS_FILE)
    return None if found.is_none else _mark(found, _describe(found), is_refused=False)


def _mark(found: Difference, detail: str, *, is_refused: bool) -> dict[str, Any]:
    return {"reader_version": READER_VERSION, "is_refused": is_refused, "detail": detail, **found.to_json()}


def _describe(found: Difference) -> str:
    """Describe the differences to a user before training on the stored rows."""
    counts = {
        "would have other rows": found.num_changed,
        "would have rows and had none": found.num_added,
        "would have none": found.num_removed,
    }
    parts = [f"{counted(count, 'line')} {what}" for what, count in counts.items() if count]
    lacks = ", ".join(f"{name} ({count:,})" for name, count in found.dropped.items())
    return (
        f"{_EARLIER}; today {', '.join(parts)}, the first is line {found.first_line}."
        + (f" The stored rows lack {lacks}." if lacks else "")
        + f" {_SEND_AGAIN}"
    )
