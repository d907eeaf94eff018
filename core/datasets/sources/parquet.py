"""Parquet, read a few rows at a time; a row is named by its number, counted from 1."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from core.datasets.faults import FileFault, listed
from core.datasets.options import MIB, Limits
from core.datasets.sources.batches import BATCH_BYTES, BATCH_ROWS, Record, RecordBatch
from core.datasets.sources.json_lines import line_too_long
from core.domain.issue_codes import IssueCode

_READ_ROWS: Final = 64
"""Rows decoded at once: a dictionary page lets few bytes stand for many long texts."""


def read_parquet(path: Path, limits: Limits) -> Iterator[RecordBatch]:
    """Raises FileFault."""
    records: list[Record] = []
    size = 0
    for line, row, num_bytes in _rows(path, limits):
        records.append(Record(line, row))
        size += num_bytes
        if len(records) == BATCH_ROWS or size >= BATCH_BYTES:
            yield RecordBatch(records)
            records, size = [], 0
    if records:
        yield RecordBatch(records)


def _rows(path: Path, limits: Limits) -> Iterator[tuple[int, dict[str, object], int]]:
    num_bytes_in, num_bytes_out = path.stat().st_size, 0
    line = 0
    try:
        with pq.ParquetFile(path, memory_map=False) as file:
            _require_size(file.metadata, limits)
            _require_distinct_names(file.schema_arrow.names)
            for batch in file.iter_batches(batch_size=_READ_ROWS, use_threads=False):
                num_bytes_out += batch.nbytes
                _require_ratio(num_bytes_in, num_bytes_out, limits)
                mean_bytes = batch.nbytes // max(1, batch.num_rows)
                for row in _to_rows(batch, line, limits):
                    line += 1
                    yield line, row, mean_bytes
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        raise FileFault(
            IssueCode.DAMAGED_FILE,
            f"The Parquet file is damaged or cut short (after row {line}). Write it again, and send it again.",
        ) from None


def _to_rows(batch: pa.RecordBatch, num_before: int, limits: Limits) -> list[dict[str, object]]:
    if batch.nbytes > limits.max_line_bytes:
        for index in range(batch.num_rows):
            if batch.slice(index, 1).nbytes > limits.max_line_bytes:
                raise line_too_long(num_before + index + 1, limits)
    rows: list[dict[str, object]] = batch.to_pylist()
    return rows


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
    total = sum(metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups))
    if total > limits.max_decompressed_bytes:
        raise _too_large(limits)


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
