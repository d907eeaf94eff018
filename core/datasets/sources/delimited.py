"""CSV and TSV with a header: a record may span lines, and is named by the line on which it begins."""

import csv
import re
from collections.abc import Iterable, Iterator
from typing import Final

from core.datasets.faults import FileFault, Note, listed
from core.datasets.options import Limits
from core.datasets.recognition import KNOWN_FIELDS
from core.datasets.sources.batches import BATCH_BYTES, BATCH_ROWS, Record, RecordBatch
from core.datasets.sources.json_lines import cut_at_newlines, line_too_long
from core.domain.issue_codes import IssueCode

_DELIMITERS: Final = (",", "\t", ";", "|")
_NAME = re.compile(r"\w[\w .\-/()]{0,63}")


def find_delimiter(head: bytes, columns: Iterable[str]) -> str | None:
    """The delimiter of a header with at least two distinct names; None where the first line is no header.

    A header with names we know (or that the user maps) is believed; any other must look like names, and the second
    line must have as many cells.
    """
    lines = head.decode(errors="replace").lstrip("\r\n").splitlines()
    if not lines:
        return None
    known = {*KNOWN_FIELDS, *columns}
    for delimiter in _DELIMITERS:
        names = next(csv.reader([lines[0]], delimiter=delimiter), [])
        if len(names) < 2 or len(set(names)) < len(names) or not all(_NAME.fullmatch(name.strip()) for name in names):
            continue
        if known & {name.strip() for name in names}:
            return delimiter
        if len(lines) > 1 and len(next(csv.reader([lines[1]], delimiter=delimiter), [])) == len(names):
            return delimiter
    return None


def read_table(chunks: Iterator[bytes], delimiter: str, limits: Limits) -> Iterator[RecordBatch]:
    """Raises FileFault for a broken table or a record over the limit. Cells that are not UTF-8 spoil their record."""
    records: list[Record] = []
    size = 0
    for record in _records(chunks, delimiter, limits):
        records.append(record)
        size += sum(map(len, record.value.values())) if isinstance(record.value, dict) else 0  # type: ignore[arg-type]
        if len(records) == BATCH_ROWS or size >= BATCH_BYTES:
            yield RecordBatch(records)
            records, size = [], 0
    if records:
        yield RecordBatch(records)


def _records(chunks: Iterator[bytes], delimiter: str, limits: Limits) -> Iterator[Record]:
    csv.field_size_limit(limits.max_line_bytes)
    reader = csv.reader(_lines(chunks, limits), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise _broken(line, error, limits) from None
        if cells is None:
            return
        if not any(cells):
            continue
        if header is None:
            header = [name.strip() for name in cells]
            _require_header(header)
        else:
            yield Record(line, _row(header, cells, line, limits))


def _lines(chunks: Iterator[bytes], limits: Limits) -> Iterator[str]:
    """Bytes that are not UTF-8 become lone surrogates, so that only their record is spoilt."""
    line = 1
    size = max(BATCH_BYTES, limits.max_line_bytes + 1)
    for data in cut_at_newlines(chunks, size):
        if len(data) > size:
            raise line_too_long(line, limits)
        lines = data.decode(errors="surrogateescape").split("\n")
        line += len(lines) - 1
        yield from (text + "\n" for text in lines[:-1])
        if lines[-1]:
            yield lines[-1]


def _require_header(header: list[str]) -> None:
    try:
        "".join(header).encode()
    except UnicodeEncodeError:
        raise FileFault(
            IssueCode.WRONG_ENCODING, "The header is not UTF-8. Save the file as UTF-8 (in Excel: 'CSV UTF-8').", line=1
        ) from None
    doubled = sorted({name for name in header if header.count(name) > 1})
    if doubled:
        raise FileFault(
            IssueCode.INVALID_TABLE, f"The header has {listed(doubled)} more than once. Name each column once.", line=1
        )


def _row(header: list[str], cells: list[str], line: int, limits: Limits) -> dict[str, object] | Note:
    if sum(map(len, cells)) > limits.max_line_bytes:
        raise line_too_long(line, limits)
    if len(cells) != len(header):
        return Note(
            IssueCode.WRONG_CELL_COUNT,
            f"The row has {len(cells)} cells, the header {len(header)}. Quote cells that hold a delimiter or a quote.",
        )
    try:
        "".join(cells).encode()
    except UnicodeEncodeError:
        return Note(IssueCode.NOT_UTF8, "The row is not UTF-8. Save the file as UTF-8 (in Excel: 'CSV UTF-8').")
    return dict(zip(header, cells, strict=True))


def _broken(line: int, error: csv.Error, limits: Limits) -> FileFault:
    if "field larger than field limit" in str(error):
        return line_too_long(line, limits)
    return FileFault(
        IssueCode.INVALID_TABLE,
        f"The table is broken at the record that begins on line {line}: a quoted cell is not closed, or goes on "
        "after its closing quote. A quote inside a quoted cell is written twice.",
        line=line,
    )
