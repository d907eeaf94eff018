"""Exports of normalised rows as streams of bytes: one Parquet file, or the files of a folder that `datasets` loads.

Memory: one row group or shard (`SHARD_BYTES`), whatever the size of the dataset.
"""

import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from core.datasets.exports.columns import BATCH_BYTES, RowTypes, to_batches

SHARD_BYTES: Final = 8 * 1024 * 1024
"""Size in Arrow from which a row group or shard is full."""


@dataclass(frozen=True, kw_only=True)
class ExportedFile:
    """A file of a folder, its path relative to it."""

    path: str
    content: bytes


def parquet_chunks(lines: Iterable[bytes], types: RowTypes, shard_bytes: int = SHARD_BYTES) -> Iterator[bytes]:
    """Yield the bytes of a Parquet file (zstd) of the rows, a row group at a time."""
    sink = io.BytesIO()
    writer = pq.ParquetWriter(pa.PythonFile(sink, mode="w"), types.schema, compression="zstd")
    for shard in _shards(lines, types, shard_bytes):
        writer.write_table(shard)
        yield from _taken(sink)
    writer.close()
    yield from _taken(sink)


def folder_files(
    lines: Iterable[bytes], types: RowTypes, fingerprint: str, shard_bytes: int = SHARD_BYTES
) -> Iterator[ExportedFile]:
    """Yield the files of a folder as `Dataset.save_to_disk` writes it; the list of the others comes last.

    `fingerprint`: of the rows, 16 hexadecimal digits; the library takes datasets of one fingerprint for the same.
    """
    info = {"citation": "", "description": "Rows as Preftune trains on them.", "homepage": "", "license": ""}
    yield ExportedFile(path="dataset_info.json", content=json.dumps(info, indent=2).encode())
    names: list[str] = []
    for shard in _shards(lines, types, shard_bytes):
        names.append(f"data-{len(names):05}.arrow")
        yield ExportedFile(path=names[-1], content=_stream(shard))
    state: dict[str, Any] = {
        "_data_files": [{"filename": name} for name in names],
        "_fingerprint": fingerprint,
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    yield ExportedFile(path="state.json", content=json.dumps(state, indent=2).encode())


def _shards(lines: Iterable[bytes], types: RowTypes, shard_bytes: int) -> Iterator[pa.Table]:
    """Yield tables of about `shard_bytes` in Arrow, at least one."""
    batches: list[pa.RecordBatch] = []
    size = 0
    num_shards = 0
    for batch in to_batches(lines, types, min(shard_bytes, BATCH_BYTES)):
        batches.append(batch)
        size += batch.nbytes
        if size >= shard_bytes:
            yield pa.Table.from_batches(batches, types.schema)
            batches, size, num_shards = [], 0, num_shards + 1
    if batches or not num_shards:
        yield pa.Table.from_batches(batches, types.schema)


def _stream(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _taken(sink: io.BytesIO) -> Iterator[bytes]:
    """Yield what was written since the last time, and forget it."""
    if content := sink.getvalue():
        sink.seek(0)
        sink.truncate()
        yield content
