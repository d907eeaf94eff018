"""CSV and TSV with a header; a record may span lines, and is named by its first line."""

import csv
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from core.datasets.faults import FileFault, Note, listed
from core.datasets.options import Limits
from core.datasets.recognition import KNOWN_FIELDS
from core.datasets.sources.batches import BATCH_BYTES, BATCH_ROWS, Record, RecordBatch
from core.datasets.sources.escapes import unescape
from core.datasets.sources.json_lines import cut_at_newlines, line_too_long
from core.domain.issue_codes import IssueCode

if TYPE_CHECKING:
    from _csv import Reader as CsvReader

_DELIMITERS: Final = (",", "\t", ";", "|")
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?')
"""What Excel puts before the header, to say how cells are parted."""
_SEPARATOR_CELLS = re.compile(r"sep=.?")
"""The same, cut at the separator."""
_NAME = re.compile(r"\w[\w .\-/()]{0,63}")


def find_delimiter(head: bytes, columns: Iterable[str]) -> str | None:
    """Return the delimiter of a header with at least two distinct names; None where the first line is none.

    A header with names we know (or that the user maps) is believed; any other must look like names, and the second
    line must have as many cells.
    """
    lines = head.decode(errors="replace").lstrip("\r\n").splitlines()[:3]
    told = _SEPARATOR_LINE.fullmatch(lines[0]) if lines else None
    if told:
        lines = lines[1:]
    for delimiter in [told[1]] if told else _DELIMITERS:
        if lines and _is_header(lines, delimiter, {*KNOWN_FIELDS, *columns}):
            return delimiter
    return None


def _is_header(lines: list[str], delimiter: str, known: set[str]) -> bool:
    cells = next(csv.reader([lines[0]], delimiter=delimiter), [])
    names = [name.strip() for name in cells if name.strip()]
    if len(names) < 2 or len(set(names)) < len(names):
        return False
    if known & set(names):
        return True
    has_as_many = len(lines) > 1 and len(next(csv.reader([lines[1]], delimiter=delimiter), [])) == len(cells)
    return has_as_many and all(_NAME.fullmatch(name) for name in names)


def read_table(
    chunks: Iterator[bytes], delimiter: str, limits: Limits, *, is_escaped: bool = False
) -> Iterator[RecordBatch]:
    """Yield records in batches; a column without a name gets one by its position.

    `is_escaped`: cells are never in quotes, and have escapes as PostgreSQL's COPY writes them (`escapes`).

    Raises FileFault for a broken table or a record over the limit. Cells that are not UTF-8 spoil their record.
    """
    records: list[Record] = []
    size = 0
    for record in _records(_reader(chunks, delimiter, limits, is_escaped), limits):
        if is_escaped and isinstance(record.value, dict):
            record = Record(record.line, {name: unescape(str(cell)) for name, cell in record.value.items()})
        records.append(record)
        size += sum(len(str(cell)) for cell in record.value.values()) if isinstance(record.value, dict) else 0
        if len(records) == BATCH_ROWS or size >= BATCH_BYTES:
            yield RecordBatch(records)
            records, size = [], 0
    if records:
        yield RecordBatch(records)


def _reader(chunks: Iterator[bytes], delimiter: str, limits: Limits, is_escaped: bool) -> "CsvReader":
    csv.field_size_limit(limits.max_line_bytes)
    lines = _lines(chunks, limits)
    if is_escaped:
        return csv.reader(lines, delimiter=delimiter, strict=True, quoting=csv.QUOTE_NONE)
    return csv.reader(lines, delimiter=delimiter, strict=True)


def _records(reader: "CsvReader", limits: Limits) -> Iterator[Record]:
    header: list[str] | None = None
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise _broken(line, error, limits) from None
        if cells is None:
            return
        if not any(cells) or (header is None and _is_separator_line(cells, line)):
            continue
        if header is None:
            header = _names(cells)
            _require_header(header)
        else:
            yield Record(line, _row(header, cells, line, limits))


def _lines(chunks: Iterator[bytes], limits: Limits) -> Iterator[str]:
    """Decode lines; bytes that are not UTF-8 become lone surrogates, so that only their record is damaged."""
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


def _is_separator_line(cells: list[str], line: int) -> bool:
    return line == 1 and _SEPARATOR_CELLS.fullmatch("".join(cells)) is not None


def _names(cells: list[str]) -> list[str]:
    """Return column names; pandas' `to_csv` and R's `write.csv` put the row number under an empty name."""
    return [cell.strip() or f"(column {place}, without a name)" for place, cell in enumerate(cells, 1)]


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
        "after its closing quote. A quote inside a quoted cell is written twice, not with a backslash (in Spark: "
        "option('escape', '\"')).",
        line=line,
    )
