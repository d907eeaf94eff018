"""Rows from the middle and the end of a file, on which an upload is tried beside the first ones."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from core.datasets.sources.batches import Batch, LineBatch, Record

_MAX_BATCHES: Final = 16
"""Batches of which rows are kept, spread over what was read."""
_MAX_ROW_CHARS: Final = 1 << 16


class LaterRows:
    """Middle and last row of some batches; memory: at most 34 rows of 64 KiB."""

    def __init__(self) -> None:
        self._waiting: deque[list[Record]] = deque()
        self._kept: list[list[Record]] = []
        self._last: list[Record] = []
        self._num_batches = 0
        self._every = 1

    def watch(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield the batches, and note their rows until `advance` says that they are processed."""
        for batch in batches:
            self._waiting.append(_rows_of(batch))
            yield batch

    def advance(self) -> None:
        """Keep rows of the next batch, so that what is kept does not depend on how far ahead batches are read."""
        self._last = self._waiting.popleft()
        if self._num_batches % self._every == 0:
            self._kept.append(self._last)
        self._num_batches += 1
        if len(self._kept) > _MAX_BATCHES:
            self._kept = self._kept[::2]
            self._every *= 2

    @property
    def records(self) -> list[Record]:
        """Rows in the order of the file, those of the last batch included."""
        rows = [row for batch in self._kept for row in batch]
        return rows if not self._kept or self._kept[-1] is self._last else [*rows, *self._last]


def _rows_of(batch: Batch) -> list[Record]:
    if isinstance(batch, LineBatch):
        lines = (_line_at(batch.data, place) for place in (len(batch.data) // 2, len(batch.data.rstrip()) - 1))
        return [Record(batch.first_line, line) for line in dict.fromkeys(lines) if line and not line.isspace()]
    records = batch.records
    places = dict.fromkeys((len(records) // 2, len(records) - 1)) if records else {}
    return [records[place] for place in places if _is_small(records[place].value)]


def _line_at(data: bytes, place: int) -> bytes:
    """Return the line around a place; empty where it is too long."""
    place = max(place, 0)
    begin = data.rfind(b"\n", max(place - _MAX_ROW_CHARS, 0), place) + 1
    end = data.find(b"\n", place, place + _MAX_ROW_CHARS)
    if (begin == 0 and place > _MAX_ROW_CHARS) or (end < 0 and len(data) - place > _MAX_ROW_CHARS):
        return b""
    return data[begin : end if end >= 0 else len(data)]


def _is_small(value: object) -> bool:
    left, num_chars = [value], 0
    while left and num_chars <= _MAX_ROW_CHARS:
        item = left.pop()
        if isinstance(item, dict):
            left += item.values()
        elif isinstance(item, Sequence) and not isinstance(item, str | bytes):
            left += item
        num_chars += len(item) if isinstance(item, str | bytes) else 8
    return num_chars <= _MAX_ROW_CHARS
