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

from core.datasets.faults import FileFault, Note, listed
from core.datasets.options import MIB, Limits
from core.datasets.sources.arrow_values import Row, RowReader
from core.datasets.sources.batches import BATCH_BYTES, BATCH_ROWS, Record, RecordBatch
from core.datasets.sources.json_lines import line_too_long
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
    records: list[Record] = []
    size = 0
    for line, row, num_bytes in _rows(path, wanted, limits):
        records.append(Record(line, row))
        size += num_bytes
        if len(records) == BATCH_ROWS or size >= BATCH_BYTES:
            yield RecordBatch(records)
            records, size = [], 0
    if records:
        yield RecordBatch(records)


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
        self._num_bytes_in = path.stat().st_size
        self._num_bytes_out = 0
        self._num_rows = 0

    def groups(self) -> Iterator[tuple[list[Row | Note], int]]:
        """Yield a few rows at a time, with the mean size of one in bytes."""
        with self._open(_BUFFER_BYTES) as file:
            num_leaves = max(1, file.metadata.num_columns)
            _refuse_encrypted(self._path, file.metadata)
            _require_size(file.metadata, self._limits)
            _require_distinct_names(file.schema_arrow.names)
        with self._open(min(_BUFFER_BYTES, _ALL_BUFFERS_BYTES // num_leaves)) as file:
            yield from self._read(file)

    def _open(self, buffer_bytes: int) -> pq.ParquetFile:
        return pq.ParquetFile(self._path, memory_map=False, pre_buffer=False, buffer_size=max(4096, buffer_bytes))

    def _read(self, file: pq.ParquetFile) -> Iterator[tuple[list[Row | Note], int]]:
        chosen = choose_columns(file, self._wanted)
        if chosen.row_bytes * file.metadata.num_rows > self._limits.max_decompressed_bytes:
            raise _too_large(self._limits)
        num_rows = max(1, min(_READ_ROWS, _READ_BYTES // max(1, chosen.row_bytes)))
        reader: RowReader | None = None
        for batch in file.iter_batches(batch_size=num_rows, columns=chosen.leaf_paths, use_threads=False):
            self._count(batch)
            reader = reader or RowReader(batch.schema, self._limits)
            rows = reader.read(batch)
            if chosen.undecoded:
                rows = [row if isinstance(row, Note) else row | chosen.undecoded for row in rows]
            self._num_rows += batch.num_rows
            yield rows, batch.nbytes // max(1, batch.num_rows)

    def _count(self, batch: pa.RecordBatch) -> None:
        limits = self._limits
        self._num_bytes_out += batch.nbytes
        _require_ratio(self._num_bytes_in, self._num_bytes_out, limits)
        if batch.nbytes <= limits.max_line_bytes:
            return
        for index in range(batch.num_rows):
            row = batch.slice(index, 1)
            if row.nbytes > limits.max_line_bytes:
                widest = max(zip(row.schema.names, row.columns, strict=True), key=lambda column: column[1].nbytes)
                raise line_too_long(self._num_rows + index + 1, limits, widest[0])


def _refuse_encrypted(path: Path, metadata: pq.FileMetaData) -> None:
    """Refuse an encrypted file, recognised by its footer's length: pyarrow 26 cannot report its columns."""
    with path.open("rb") as file:
        file.seek(-8, 2)
        footer_bytes = int.from_bytes(file.read(4), "little")
    if footer_bytes == metadata.serialized_size + _FOOTER_SIGNATURE_BYTES:
        raise FileFault(
            IssueCode.ENCRYPTED_FILE, "The Parquet file has encrypted columns. Write it without encryption and send it."
        )


def _require_distinct_names(names: list[str]) -> None:
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise FileFault(
            IssueCode.INVALID_TABLE, f"The table has {listed(doubled)} more than once. Name each column once."
        )


def _require_size(metadata: pq.FileMetaData, limits: Limits) -> None:
    if metadata.num_rows > limits.max_rows:
        raise FileFault(
            IssueCode.TOO_MANY_ROWS,
            f"The file has {metadata.num_rows:,} rows; {limits.max_rows:,} are allowed. Split it.",
        )


def _require_ratio(num_bytes_in: int, num_bytes_out: int, limits: Limits) -> None:
    if num_bytes_out > limits.max_decompressed_bytes:
        raise _too_large(limits)
    if num_bytes_out > limits.ratio_free_bytes and num_bytes_out > limits.max_ratio * num_bytes_in:
        raise FileFault(
            IssueCode.COMPRESSION_RATIO,
            f"The file grows more than {limits.max_ratio}-fold when read, as a decompression bomb does. "
            "Send the rows as JSONL if they are real.",
        )


def _too_large(limits: Limits) -> FileFault:
    return FileFault(
        IssueCode.DECOMPRESSED_TOO_LARGE,
        f"The file is larger than {limits.max_decompressed_bytes // MIB:,} MiB once decompressed. Split it.",
    )
