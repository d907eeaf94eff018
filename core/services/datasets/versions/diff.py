"""Differences of two versions: rows added, removed, or with chosen and rejected swapped."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from core.database.tables.datasets import Dataset
from core.datasets.editing import swapped_row
from core.domain.errors import FieldError, InvalidRequest
from core.services.backend import Backend
from core.services.cursors import decode_offset, encode_cursor
from core.services.datasets import datasets
from core.services.datasets.row_pages import MAX_PAGE_BYTES
from core.services.datasets.versions.recipes import Row, row_digest, stored_rows
from core.storage import keys

MAX_ROWS = 1_000_000
"""Rows of either side: each takes a digest in memory."""


@dataclass(frozen=True, kw_only=True)
class RowChange:
    change: str
    """`added`, `swapped` or `removed`"""
    line: int | None
    """In the newer version; None for a removed row."""
    old_line: int | None
    """In the older version; None for an added row."""
    row: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class DiffPage:
    old: str
    new: str
    num_added: int
    num_removed: int
    num_swapped: int
    num_equal: int
    data: list[RowChange]
    """Added and swapped rows in the order of the newer version, then removed ones in that of the older."""
    next_cursor: str | None


def diff(
    backend: Backend, project_id: str, name: str, against: str, *, limit: int = 20, cursor: str | None = None
) -> DiffPage:
    """Compare a dataset with an older one, row by row; rows that only stand on another line are equal.

    Raises DatasetNotFound, DatasetNotReady, InvalidRequest for other kinds or too many rows.
    """
    start = decode_offset(cursor)
    new, old = (_find_comparable(backend, project_id, asked) for asked in (name, against))
    if new.kind is not old.kind:
        fault = f"{old.version_name} is of kind {old.kind.value}, {new.version_name} of kind {new.kind.value}"
        raise InvalidRequest(f"`against`: {fault}.", errors=[FieldError("/against", fault)])
    counts: Counter[str] = Counter()
    window = _Window(start, limit)
    for found in _changes(backend, old, new):
        if found is None:
            counts["equal"] += 1
            continue
        counts[found.change] += 1
        window.offer(found)
    return DiffPage(
        old=old.version_name,
        new=new.version_name,
        num_added=counts["added"],
        num_removed=counts["removed"],
        num_swapped=counts["swapped"],
        num_equal=counts["equal"],
        data=window.shown,
        next_cursor=window.next_cursor,
    )


class _Window:
    """The changes of one page, of all that come by."""

    def __init__(self, start: int, limit: int) -> None:
        self.shown: list[RowChange] = []
        self._start, self._limit = start, limit
        self._position = self._num_bytes = 0
        self._end: int | None = None

    def offer(self, found: RowChange) -> None:
        position, self._position = self._position, self._position + 1
        if position < self._start or self._end is not None:
            return
        size = sum(len(str(value)) for value in found.row.values())
        if len(self.shown) >= self._limit or (self.shown and self._num_bytes + size > MAX_PAGE_BYTES):
            self._end = position
            return
        self.shown.append(found)
        self._num_bytes += size

    @property
    def next_cursor(self) -> str | None:
        return None if self._end is None else encode_cursor(str(self._end))


def _changes(backend: Backend, old: Dataset, new: Dataset) -> Iterator[RowChange | None]:
    """Yield each change, and None for each row that both have."""
    before: dict[bytes, list[int]] = {}
    for row in _rows(backend, old):
        before.setdefault(row_digest(row), []).append(row["line"])
    for lines in before.values():
        lines.reverse()  # so that the first is taken first
    for row in _rows(backend, new):
        if equal := before.get(row_digest(row)):
            equal.pop()
            yield None
            continue
        turned = before.get(row_digest(swapped_row(row)))
        old_line = turned.pop() if turned else None
        change = "added" if old_line is None else "swapped"
        yield RowChange(change=change, line=row["line"], old_line=old_line, row=row)
    if not any(before.values()):
        return
    for row in _rows(backend, old):
        if row["line"] in before[row_digest(row)]:
            yield RowChange(change="removed", line=None, old_line=row["line"], row=row)


def _rows(backend: Backend, dataset: Dataset) -> Iterator[Row]:
    return stored_rows(backend.store, keys.dataset_rows(dataset.project_id, dataset.id))


def _find_comparable(backend: Backend, project_id: str, name: str) -> Dataset:
    row = datasets.find_ready(backend, project_id, name)
    if row.num_accepted > MAX_ROWS:
        fault = f"{name} has {row.num_accepted:,} rows; versions of at most {MAX_ROWS:,} are compared"
        raise InvalidRequest(f"{fault}.", errors=[FieldError("/against", fault)])
    return row
