"""JSON Lines: one object per line. Only line feeds end a line; U+2028 and the like are text."""

from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np

from core.datasets.faults import FileFault, quoted
from core.datasets.options import Limits
from core.datasets.sources.batches import BATCH_BYTES, LineBatch
from core.domain.issue_codes import IssueCode

_LINE_FEED: Final = 10
_WHITE_SPACE: Final = b" \t\r\n"


def read_lines(chunks: Iterator[bytes], head: bytes, limits: Limits) -> Iterator[LineBatch]:
    """Yield batches of lines; raises FileFault for pretty-printed objects, and for a line over the limit."""
    _refuse_pretty_printed(head)
    chunks = with_line_feeds(chunks, head)
    first_line = 1
    size = max(BATCH_BYTES, limits.max_line_bytes + 1)
    for data in cut_at_newlines(chunks, size):
        if len(data) > size:
            raise line_too_long(first_line, limits)
        num_lines = int(np.count_nonzero(np.frombuffer(data, np.uint8) == _LINE_FEED))
        yield LineBatch(first_line, num_lines, data)
        first_line += num_lines


def with_line_feeds(chunks: Iterator[bytes], head: bytes) -> Iterator[bytes]:
    """Replace old Mac line ends by line feeds, where there are no others."""
    if b"\n" in head or b"\r" not in head.strip(_WHITE_SPACE):
        return chunks
    return (chunk.replace(b"\r", b"\n") for chunk in chunks)


def cut_at_newlines(chunks: Iterable[bytes], size: int) -> Iterator[bytes]:
    """Yield pieces of at most `size` bytes that end with a line, wherever the chunks end.

    A longer piece holds (the beginning of) one line that is longer than `size`; the caller should stop there.
    """
    waiting: list[bytes] = []
    num_waiting = 0
    for chunk in chunks:
        waiting.append(chunk)
        num_waiting += len(chunk)
        if num_waiting <= size:
            continue
        data = b"".join(waiting)
        begin = 0
        while len(data) - begin > size:
            end = data.rfind(b"\n", begin, begin + size) + 1
            if not end:
                end = len(data)
            yield data[begin:end]
            begin = end
        waiting, num_waiting = [data[begin:]], len(data) - begin
    if num_waiting:
        yield b"".join(waiting)


def line_too_long(line: int, limits: Limits, widest_column: str | None = None) -> FileFault:
    most = f", most of them in {quoted(widest_column)}" if widest_column is not None else ""
    return FileFault(
        IssueCode.LINE_TOO_LONG,
        f"Line {line} is longer than {limits.max_line_bytes:,} bytes, the limit for one row{most}. "
        "Shorten or drop that row.",
        line=line,
    )


def _refuse_pretty_printed(head: bytes) -> None:
    """Refuse a pretty-printed file with one message instead of one per line."""
    first, _, rest = head.lstrip(_WHITE_SPACE).partition(b"\n")
    if first.strip(_WHITE_SPACE) == b"{" and rest.lstrip(_WHITE_SPACE)[:1] == b'"':
        raise FileFault(
            IssueCode.PRETTY_PRINTED,
            "The objects are spread over several lines (line 1 is only an opening brace). Write one object a line, "
            "or put all objects into one JSON array.",
            line=1,
        )
