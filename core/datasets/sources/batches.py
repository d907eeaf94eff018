"""Batches of rows from sources, cut by the data alone so that the verdict does not depend on how it is read."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from core.datasets.faults import Note

BATCH_BYTES: Final = 1 << 20
BATCH_ROWS: Final = 2_000


class Record(NamedTuple):
    line: int
    """Where the row begins, counted from 1."""
    value: bytes | dict[str, object] | Note
    """A JSON value, a row of a table, or what is wrong with it."""


@dataclass(frozen=True)
class LineBatch:
    """Batch of whole lines as bytes."""

    first_line: int
    num_lines: int
    data: bytes


@dataclass(frozen=True)
class RecordBatch:
    records: list[Record]


Batch = LineBatch | RecordBatch


def in_batches(rows: Iterable[tuple[int, dict[str, object] | Note, int]]) -> Iterator[RecordBatch]:
    """Yield the rows in batches; each comes with its line and its size in bytes."""
    records: list[Record] = []
    size = 0
    for line, row, num_bytes in rows:
        records.append(Record(line, row))
        size += num_bytes
        if len(records) == BATCH_ROWS or size >= BATCH_BYTES:
            yield RecordBatch(records)
            records, size = [], 0
    if records:
        yield RecordBatch(records)
