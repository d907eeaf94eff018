"""One JSON array of objects, cut into its elements as a stream."""

import re
from collections.abc import Iterator
from typing import Final

from core.datasets.faults import FileFault
from core.datasets.options import Limits
from core.datasets.sources.batches import BATCH_BYTES, BATCH_ROWS, Record, RecordBatch
from core.domain.issue_codes import IssueCode

# A string (never re-scanned: the quantifiers are possessive), or a character that opens, closes or separates.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[{}\[\],"]', re.DOTALL)
_OPENING: Final = frozenset(b"{[")
_CLOSING: Final = frozenset(b"}]")
_QUOTE: Final = ord('"')
_COMMA: Final = ord(",")
_WHITE_SPACE: Final = b" \t\r\n"


def read_array(chunks: Iterator[bytes], limits: Limits) -> Iterator[RecordBatch]:
    """Yield batches of elements; raises FileFault where the array is broken, while broken elements are rows."""
    records: list[Record] = []
    size = 0
    for record in ArrayCutter(limits).cut(chunks):
        records.append(record)
        size += len(record.value) if isinstance(record.value, bytes) else 0
        if len(records) == BATCH_ROWS or size >= BATCH_BYTES:
            yield RecordBatch(records)
            records, size = [], 0
    if records:
        yield RecordBatch(records)


class ArrayCutter:
    """State within the array: the current element's bytes and nesting depth."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._buffer = b""
        self._position = 0
        """Everything before is scanned."""
        self._begin = 0
        """Start of the current element in the buffer."""
        self._depth = 0
        """0 before the array, 1 between its elements' values."""
        self._line = 1
        """Line of `_begin`."""
        self._num_elements = 0
        self._is_over = False

    def cut(self, chunks: Iterator[bytes]) -> Iterator[Record]:
        for chunk in chunks:
            self._buffer = self._buffer[self._begin :] + chunk
            self._position -= self._begin
            self._begin = 0
            if self._is_over:
                self._require_blank(self._buffer)
                self._begin = self._position = len(self._buffer)
            else:
                yield from self._scan()
            if len(self._buffer) - self._begin > self._limits.max_line_bytes:
                raise self._too_long()
        if not self._is_over:
            raise self._invalid("the array is not closed: the file is cut off before its ']'")

    def _scan(self) -> Iterator[Record]:
        for match in _TOKEN.finditer(self._buffer, self._position):
            token = self._buffer[match.start()]
            if token == _QUOTE and match.end() == match.start() + 1:  # the string goes on in the next chunk
                self._position = match.start()
                return
            if token in _OPENING:
                self._open(match.end())
            elif token in _CLOSING:
                self._depth -= 1
                if self._depth == 0:
                    yield from self._end(match)
                    return
            elif token == _COMMA and self._depth == 1:
                yield self._element(match.start(), match.end())
        self._position = len(self._buffer)

    def _open(self, end: int) -> None:
        self._depth += 1
        if self._depth == 1:
            self._require_blank(self._buffer[self._begin : end - 1])
            self._move_to(end)
        elif self._depth > self._limits.max_depth:
            line = self._line + self._buffer.count(b"\n", self._begin, end)
            raise FileFault(
                IssueCode.TOO_DEEP,
                f"Line {line} is nested more than {self._limits.max_depth} levels deep. Flatten it.",
                line=line,
            )

    def _end(self, match: re.Match[bytes]) -> Iterator[Record]:
        if self._num_elements or self._buffer[self._begin : match.start()].strip(_WHITE_SPACE):
            yield self._element(match.start(), match.end())
        self._is_over = True
        rest = self._buffer[match.end() :]
        self._require_blank(rest)
        self._begin = self._position = len(self._buffer)

    def _element(self, end: int, next_begin: int) -> Record:
        text = self._buffer[self._begin : end]
        stripped = text.lstrip(_WHITE_SPACE)
        line = self._line + text.count(b"\n", 0, len(text) - len(stripped))
        if not stripped:
            raise self._invalid("an element is missing between two commas, or after the last")
        if len(stripped) > self._limits.max_line_bytes:
            raise self._too_long()
        self._move_to(next_begin)
        self._num_elements += 1
        return Record(line, stripped)

    def _move_to(self, position: int) -> None:
        self._line += self._buffer.count(b"\n", self._begin, position)
        self._begin = position

    def _require_blank(self, text: bytes) -> None:
        if text.strip(_WHITE_SPACE):
            raise self._invalid("there is something outside the array")

    def _invalid(self, what: str) -> FileFault:
        return FileFault(
            IssueCode.INVALID_ARRAY,
            f"The JSON array is broken at line {self._line}: {what}. Correct it, or write one object a line (JSONL).",
            line=self._line,
        )

    def _too_long(self) -> FileFault:
        return FileFault(
            IssueCode.LINE_TOO_LONG,
            f"The array element that begins at line {self._line} is longer than {self._limits.max_line_bytes:,} bytes, "
            "the limit for one row. Shorten or drop it.",
            line=self._line,
        )
