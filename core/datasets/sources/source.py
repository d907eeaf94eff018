"""Container of a file, recognised by its content, and its batches."""

from collections.abc import Iterator, Mapping
from typing import Final

from core.datasets.faults import FileFault, Note
from core.datasets.layouts.columns import MEANINGFUL_NAMES
from core.datasets.options import CheckOptions, Limits
from core.datasets.recognition import KNOWN_FIELDS
from core.datasets.sources.batches import Batch
from core.datasets.sources.delimited import find_delimiter, read_table
from core.datasets.sources.escapes import take_census
from core.datasets.sources.json_array import read_array
from core.datasets.sources.json_lines import read_lines, with_line_feeds
from core.datasets.sources.text import SourceFile, TextStream
from core.domain.issue_codes import IssueCode

_TABLE_NAMES: Final = {"\t": "tsv"}


class Source:
    """Rows of a file; `container` says what it is."""

    def __init__(self, file: SourceFile, stream: TextStream, columns: Mapping[str, str], limits: Limits) -> None:
        self._file = file
        self._stream = stream
        self._limits = limits
        self.notes: list[Note] = []
        """Remarks on the file as a whole, known once its batches are asked for."""
        self._wanted = {*KNOWN_FIELDS, *MEANINGFUL_NAMES, *columns.values()}
        self._delimiter: str | None = None
        begin = stream.head.lstrip(b" \t\r\n")
        if stream.is_parquet:
            self.container = "parquet"
        elif begin[:1] == b"[":
            self.container = "json"
        elif begin[:1] != b"{" and (delimiter := find_delimiter(stream.head, columns.values())):
            self.container = _TABLE_NAMES.get(delimiter, "csv")
            self._delimiter = delimiter
        else:
            self.container = "jsonl"

    def batches(self) -> Iterator[Batch]:
        """Yield the batches, once. Raises FileFault where the file is broken."""
        if self.container == "parquet":
            return self._parquet()
        chunks = self._stream.chunks()
        if self.container == "json":
            return read_array(chunks, self._limits)
        if self._delimiter:
            return read_table(
                with_line_feeds(chunks, self._stream.head), self._delimiter, self._limits, is_escaped=self._is_escaped()
            )
        return read_lines(chunks, self._stream.head, self._limits)

    def _is_escaped(self) -> bool:
        """Whether tabs and line breaks are escaped; reads the whole file, as its first rows do not tell."""
        if self._delimiter != "\t":
            return False
        file = SourceFile(self._file.path, self._limits)
        try:
            is_escaped = take_census(TextStream(file, CheckOptions(limits=self._limits)).chunks()).is_escaped
        finally:
            file.close()
        if is_escaped:
            detail = (
                "The table is in the text format of PostgreSQL's COPY (or jq's @tsv): every backslash begins an "
                "escape, and is read as the line break, tab or backslash that it stands for."
            )
            self.notes.append(Note(IssueCode.DECODED_TEXTS, detail))
        return is_escaped

    def _parquet(self) -> Iterator[Batch]:
        if self._stream.compression:
            raise FileFault(
                IssueCode.NESTED_COMPRESSION,
                "This is a Parquet file inside another compression. Parquet is compressed already; send it as it is.",
            )
        from core.datasets.sources.parquet import read_parquet  # noqa: PLC0415 - see tests/architecture/test_budgets.py

        return read_parquet(self._file.path, self._wanted, self._limits)
