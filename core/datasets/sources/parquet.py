"""Parquet, read a few rows at a time whatever the size of its row groups; rows are numbered from 1.

One column chunk of a row group is never held as a whole: without `pre_buffer`, and with a buffer of its own, a column
is read page by page. (Either alone changes nothing; measured on 500,000 pairs in one group: 779 MB without, 103 with.)
Without `pre_buffer` pyarrow starts no thread either, which the pool's fork needs.
"""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from core.datasets.faults import FileFault, Note
from core.datasets.options import MIB, Limits
from core.datasets.sources.arrow_values import (
    BatchMeter,
    Row,
    RowReader,
    decompressed_too_large,
    require_distinct_names,
)
from core.datasets.sources.batches import RecordBatch, in_batches
from core.datasets.sources.parquet_columns import choose_columns
from core.domain.issue_codes import IssueCode

_READ_ROWS: Final = 64
"""Rows decoded at once, at most: a dictionary page lets few bytes stand for many long texts."""
_READ_BYTES: Final = 4 * MIB
"""Bytes of the rows decoded at once, as far as their mean size predicts."""
_BUFFER_BYTES: Final = MIB
_ALL_BUFFERS_BYTES: Final = 16 * MIB
_FOOTER_SIGNATURE_BYTES: Final = 28
"""After the footer of a file whose footer is readable and whose columns are encrypted."""
_SMALLER_GROUPS: Final = (
    "Write the file in smaller pages and row groups (pyarrow and pandas: row_group_size=10_000; fastparquet: "
    "row_group_offsets=10_000), or send JSONL"
)


def read_parquet(path: Path, wanted: Collection[str], limits: Limits) -> Iterator[RecordBatch]:
    """Yield batches of rows; `wanted` are names of columns that layouts know, or that the user maps.

    Raises:
        FileFault: the file is damaged, encrypted or over a limit.
        MemoryError: one page of a column is too large for the memory of the check; the message says what to do.
    """
    return in_batches(_rows(path, wanted, limits))


def _rows(path: Path, wanted: Collection[str], limits: Limits) -> Iterator[tuple[int, Row | Note, int]]:
    line = 0
    try:
        for rows, mean_bytes in _ParquetRows(path, wanted, limits).groups():
            for row in rows:
                line += 1
                yield line, row, mean_bytes
    except MemoryError:
        raise MemoryError(
            f"A page of the Parquet file is too large for the memory of a check (after row {line:,}). "
            f"{_SMALLER_GROUPS}."
        ) from None
    except (pa.ArrowException, OSError):
        raise FileFault(
            IssueCode.DAMAGED_FILE,
            f"The Parquet file is damaged or cut short (after row {line}). Write it again, and send it again.",
        ) from None


class _ParquetRows:
    def __init__(self, path: Path, wanted: Collection[str], limits: Limits) -> None:
        self._path = path
        self._wanted = wanted
        self._limits = limits

    def groups(self) -> Iterator[tuple[list[Row | Note], int]]:
        """Yield a few rows at a time, with the mean size of one in bytes."""
        with self._open(_BUFFER_BYTES) as file:
            num_leaves = max(1, file.metadata.num_columns)
            _refuse_encrypted(self._path, file.metadata)
            _require_size(file.metadata, self._limits)
            require_distinct_names(file.schema_arrow.names)
        with self._open(min(_BUFFER_BYTES, _ALL_BUFFERS_BYTES // num_leaves)) as file:
            yield from self._read(file)

    def _open(self, buffer_bytes: int) -> pq.ParquetFile:
        return pq.ParquetFile(self._path, memory_map=False, pre_buffer=False, buffer_size=max(4096, buffer_bytes))

    def _read(self, file: pq.ParquetFile) -> Iterator[tuple[list[Row | Note], int]]:
        chosen = choose_columns(file, self._wanted)
        if chosen.row_bytes * file.metadata.num_rows > self._limits.max_decompressed_bytes:
            raise decompressed_too_large(self._limits)
        num_rows = max(1, min(_READ_ROWS, _READ_BYTES // max(1, chosen.row_bytes)))
        reader: RowReader | None = None
        meter = BatchMeter(self._path.stat().st_size, self._limits)
        for batch in file.iter_batches(batch_size=num_rows, columns=chosen.leaf_paths, use_threads=False):
            meter.count(batch)
            reader = reader or RowReader(batch.schema, self._limits)
            rows = reader.read(batch)
            if chosen.undecoded:
                rows = [row if isinstance(row, Note) else row | chosen.undecoded for row in rows]
            yield rows, batch.nbytes // max(1, batch.num_rows)


def _refuse_encrypted(path: Path, metadata: pq.FileMetaData) -> None:
    """Refuse an encrypted file, recognised by its footer's length: pyarrow 26 cannot report its columns."""
    with path.open("rb") as file:
        file.seek(-8, 2)
        footer_bytes = int.from_bytes(file.read(4), "little")
    if footer_bytes == metadata.serialized_size + _FOOTER_SIGNATURE_BYTES:
        raise FileFault(
            IssueCode.ENCRYPTED_FILE, "The Parquet file has encrypted columns. Write it without encryption and send it."
        )


def _require_size(metadata: pq.FileMetaData, limits: Limits) -> None:
    if metadata.num_rows > limits.max_rows:
        raise FileFault(
            IssueCode.TOO_MANY_ROWS,
            f"The file has {metadata.num_rows:,} rows; {limits.max_rows:,} are allowed. Split it.",
        )
