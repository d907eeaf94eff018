"""Batches of rows from sources, cut by the data alone so that the verdict does not depend on how it is read."""

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
