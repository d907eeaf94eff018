"""Arrow files and streams, read a few rows at a time; rows are numbered from 1 over all parts.

A file is mapped, so that batches without compression take no memory of the check; each batch is validated before a
value of it is looked at, as offsets of a damaged one may point anywhere.
"""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa

from core.datasets.faults import FileFault, Note
from core.datasets.messages.undecoded import Undecoded
from core.datasets.options import Limits
from core.datasets.sources.arrow_values import (
    BatchMeter,
    Row,
    RowReader,
    children,
    is_binary,
    is_plain,
    require_distinct_names,
)
from core.datasets.sources.batches import RecordBatch, in_batches
from core.datasets.sources.saved_folder import Part
from core.datasets.sources.signatures import ARROW_FILE_MAGIC
from core.domain.issue_codes import IssueCode

_SLICE_ROWS: Final = 64
"""Rows made into values at once."""
_END_OF_STREAM: Final = b"\xff\xff\xff\xff\0\0\0\0"
_OLD_END_OF_STREAM: Final = b"\0\0\0\0"
"""Before Arrow 0.15."""


def read_arrow(
    path: Path, parts: Sequence[Part] | None, wanted: Collection[str], limits: Limits
) -> Iterator[RecordBatch]:
    """Yield batches of rows of an Arrow file or stream, or of several in one file.

    `parts`: where they lie; None for the whole file. `wanted`: columns of bytes that are read, as layouts know them.

    Raises:
        FileFault: the file is damaged or over a limit.
        MemoryError: one batch is too large for the memory of the check; the message says what to do.
    """
    return in_batches(_rows(path, parts, wanted, limits))


def _rows(
    path: Path, parts: Sequence[Part] | None, wanted: Collection[str], limits: Limits
) -> Iterator[tuple[int, Row | Note, int]]:
    line = 0
    meter = BatchMeter(path.stat().st_size, limits)
    try:
        with pa.memory_map(str(path)) as mapped:
            for part in parts or [Part(offset=0, num_bytes=mapped.size())]:
                mapped.seek(part.offset)
                buffer = mapped.read_buffer(part.num_bytes)
                for row, num_bytes in _ArrowRows(buffer, wanted, limits, meter).rows():
                    line += 1
                    yield line, row, num_bytes
    except MemoryError:
        raise MemoryError(
            f"A batch of the Arrow file is too large for the memory of a check (after row {line:,}). Write it "
            "uncompressed or in smaller batches (pyarrow: write_table(table, max_chunksize=10_000)), or send JSONL."
        ) from None
    except (pa.ArrowException, OSError):
        raise FileFault(
            IssueCode.DAMAGED_FILE,
            f"The Arrow file is damaged or cut short (after row {line}). Write it again, and send it again.",
        ) from None


class _ArrowRows:
    def __init__(self, buffer: pa.Buffer, wanted: Collection[str], limits: Limits, meter: BatchMeter) -> None:
        self._buffer = buffer
        self._limits = limits
        self._meter = meter
        self._is_file = buffer.slice(0, len(ARROW_FILE_MAGIC)).to_pybytes() == ARROW_FILE_MAGIC
        if not self._is_file:
            _require_end(buffer)
        schema = self._open(pa.ipc.IpcReadOptions(use_threads=False)).schema
        require_distinct_names(schema.names)
        self._undecoded = {field.name: what for field in schema if (what := _undecoded(field, wanted)) is not None}
        taken = [index for index, name in enumerate(schema.names) if name not in self._undecoded]
        self._options = pa.ipc.IpcReadOptions(included_fields=taken, use_threads=False)
        self._has_columns = bool(taken)

    def rows(self) -> Iterator[tuple[Row | Note, int]]:
        """Yield each row with its size in bytes."""
        reader: RowReader | None = None
        for batch in self._batches():
            batch.validate(full=True)
            for begin in range(0, batch.num_rows, _SLICE_ROWS):
                rows = batch.slice(begin, _SLICE_ROWS)
                self._meter.count(rows)
                reader = reader or RowReader(rows.schema, self._limits)
                mean_bytes = rows.nbytes // max(1, rows.num_rows)
                for row in reader.read(rows):
                    yield row if isinstance(row, Note) else row | self._undecoded, mean_bytes

    def _batches(self) -> Iterator[pa.RecordBatch]:
        if not self._has_columns:
            return
        opened = self._open(self._options)
        if self._is_file:
            for index in range(opened.num_record_batches):
                yield opened.get_batch(index)
        else:
            yield from opened

    def _open(self, options: pa.ipc.IpcReadOptions) -> pa.ipc.RecordBatchFileReader | pa.ipc.RecordBatchStreamReader:
        open_reader = pa.ipc.open_file if self._is_file else pa.ipc.open_stream
        return open_reader(pa.BufferReader(self._buffer), options=options)


def _require_end(buffer: pa.Buffer) -> None:
    """Refuse a stream without its end: one that is cut between two batches looks whole otherwise."""
    end = buffer.slice(max(0, buffer.size - len(_END_OF_STREAM))).to_pybytes()
    if end != _END_OF_STREAM and not end.endswith(_OLD_END_OF_STREAM):
        raise FileFault(
            IssueCode.DAMAGED_FILE,
            "The Arrow stream has no end-of-stream mark, so rows may be missing. Close its writer, and send it again.",
        )


def _undecoded(field: pa.Field, wanted: Collection[str]) -> Undecoded | None:
    """Return what stands in the place of a column that is not read: times, pictures and the like."""
    for leaf in _leaves(field.type):
        if not is_plain(leaf) and not (is_binary(leaf) and field.name in wanted):
            return Undecoded(f"of the type {str(leaf)[:60]}; write it as text or JSON")
    return None


def _leaves(value_type: pa.DataType) -> Iterator[pa.DataType]:
    below = children(value_type)
    if below is None:
        yield value_type
    for field in below or ():
        yield from _leaves(field.type)
