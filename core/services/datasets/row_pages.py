"""Pages of a dataset's rows: from a line on, and those that hold a text."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from core.domain.errors import InvalidRequest
from core.services.cursors import BAD_CURSOR, decode_offset, encode_cursor
from core.services.views import Page
from core.storage.object_store import ObjectStore, read_stored

MAX_PAGE_BYTES = 8 * 1024**2
MAX_SEARCHED_BYTES = 64 * 1024**2
"""Bytes that one page looks through for a text; the next page goes on behind them."""
_STRETCH_BYTES = 256 * 1024
"""A line is looked for by halving until so little is left, which is then read through."""

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class RowsQuery:
    """Which rows a page holds."""

    limit: int = 20
    cursor: str | None = None
    line: int | None = None
    """Rows from this line of the uploaded file on; a cursor goes before it."""
    search: str | None = None
    """Text that a row holds; upper and lower case are one."""
    max_bytes: int = MAX_PAGE_BYTES
    """Bytes of a page at most, but at least one row."""


def read_page(store: ObjectStore, key: str, query: RowsQuery) -> Page[Row]:
    """Return rows in the order of the file. Raises InvalidRequest for a foreign cursor."""
    start = decode_offset(query.cursor)
    if query.line is not None and not query.cursor:
        start = _offset_of_line(store, key, query.line)
    wanted = query.search.casefold() if query.search else None
    shown: list[Row] = []
    num_bytes = 0
    for offset, line in _lines(store, key, start):
        is_full = len(shown) >= query.limit or (shown and num_bytes + len(line) > query.max_bytes)
        if is_full or (wanted is not None and offset - start >= MAX_SEARCHED_BYTES):
            return Page(data=shown, next_cursor=encode_cursor(str(offset)))
        if wanted is None or wanted in line.decode(errors="replace").casefold() or b"\\" in line:
            row = _parse(line)
            if wanted is None or any(wanted in text.casefold() for text in texts_of(row)):
                shown.append(row)
                num_bytes += len(line)
    return Page(data=shown, next_cursor=None)


def _lines(store: ObjectStore, key: str, offset: int) -> Iterator[tuple[int, bytes]]:
    """Yield where each line begins, and its bytes, from an offset on."""
    rest = b""
    for chunk in read_stored(store, key, offset):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield offset, line
            offset += len(line) + 1


def _offset_of_line(store: ObjectStore, key: str, wanted: int) -> int:
    """Return where the first row at or behind a line of the file begins; the rows stand in the order of lines."""
    num_bytes = store.stat(key).num_bytes
    low, high = 0, num_bytes
    while high - low > _STRETCH_BYTES:
        middle = (low + high) // 2
        # The first line read begins anywhere, the second is whole.
        found = next((item for place, item in enumerate(_lines(store, key, middle)) if place == 1), None)
        if found is None or found[0] >= high:
            high = middle
        elif int(_parse(found[1])["line"]) < wanted:
            low = found[0]
        else:
            high = middle
    found_at = (offset for offset, line in _lines(store, key, low) if int(_parse(line)["line"]) >= wanted)
    return next(found_at, num_bytes)


def _parse(line: bytes) -> Row:
    try:
        row: Row = orjson.loads(line)
    except orjson.JSONDecodeError:
        raise InvalidRequest(BAD_CURSOR) from None
    return row


def texts_of(value: Any) -> Iterator[str]:
    """Yield every text in a plain value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from texts_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts_of(inner)
