"""Container of a file, recognised by its content, and its batches."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from core.datasets.faults import FileFault, Note, quoted
from core.datasets.layouts.columns import MEANINGFUL_NAMES
from core.datasets.options import CheckOptions
from core.datasets.recognition import KNOWN_FIELDS
from core.datasets.sources.batches import Batch
from core.datasets.sources.delimited import find_delimiter, read_table
from core.datasets.sources.escapes import take_census
from core.datasets.sources.json_array import read_array
from core.datasets.sources.json_lines import read_lines, with_line_feeds
from core.datasets.sources.saved_folder import find_parts
from core.datasets.sources.text import SourceFile, TextStream
from core.domain.issue_codes import IssueCode

_SAVED: Final = "datasets"
"""A tar of a folder of Hugging Face's datasets."""
_BINARY_NAMES: Final = {"tar": _SAVED}
_TABLE_NAMES: Final = {"\t": "tsv"}


class Source:
    """Rows of a file; `container` says what it is."""

    def __init__(self, file: SourceFile, stream: TextStream, options: CheckOptions, unpacked: Path) -> None:
        """`unpacked`: a file that may be made of a compressed tar; the caller removes it."""
        columns = options.columns
        self._file = file
        self._stream = stream
        self._limits = options.limits
        self._split = options.split
        self._unpacked = unpacked
        self.notes: list[Note] = []
        """Remarks on the file as a whole, known once its batches are asked for."""
        self._wanted = {*KNOWN_FIELDS, *MEANINGFUL_NAMES, *columns.values()}
        self._delimiter: str | None = None
        begin = stream.head.lstrip(b" \t\r\n")
        if stream.container is not None:
            self.container: str = _BINARY_NAMES.get(stream.container, stream.container)
        elif begin[:1] == b"[":
            self.container = "json"
        elif begin[:1] != b"{" and (delimiter := find_delimiter(stream.head, columns.values())):
            self.container = _TABLE_NAMES.get(delimiter, "csv")
            self._delimiter = delimiter
        else:
            self.container = "jsonl"

    def batches(self) -> Iterator[Batch]:
        """Yield the batches, once. Raises FileFault where the file is broken."""
        if self._split is not None and self.container != _SAVED:
            raise FileFault(
                IssueCode.SPLIT_TO_CHOOSE,
                f"The file is {self.container}, which has no splits, and split is {quoted(self._split)}. Leave it out.",
            )
        if self._stream.container is not None:
            return self._binary()
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

    def _binary(self) -> Iterator[Batch]:
        if self._stream.compression and self.container != _SAVED:
            raise FileFault(
                IssueCode.NESTED_COMPRESSION,
                f"This is a {self.container.capitalize()} file inside another compression. Send it as it is.",
            )
        if self.container == "parquet":
            from core.datasets.sources.parquet import read_parquet  # noqa: PLC0415 - see LOCAL_IMPORTS of test_budgets.py

            return read_parquet(self._file.path, self._wanted, self._limits)
        path = self._file.path
        if self._stream.compression:
            self._unpack()
            path = self._unpacked
        parts = find_parts(path, self._split) if self.container == _SAVED else None
        from core.datasets.sources.arrow_files import read_arrow  # noqa: PLC0415 - see LOCAL_IMPORTS of test_budgets.py

        return read_arrow(path, parts, self._wanted, self._limits)

    def _unpack(self) -> None:
        """Decompress into a file beside the rows, since Arrow is read where it lies; limited as any decompression."""
        with self._unpacked.open("wb") as file:
            for chunk in self._stream.chunks():
                file.write(chunk)
