"""Opaque cursors of paginated lists."""

import base64
import binascii

from core.domain.errors import InvalidRequest

_MAX_OFFSET_DIGITS = 13
"""File systems refuse to seek much further; no file of this service is as long."""
BAD_CURSOR = "`cursor` is not one that this list gave out; leave it away to start at the first page"


def encode_cursor(value: str) -> str:
    return base64.urlsafe_b64encode(value.encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> str:
    """Decode a cursor; raises InvalidRequest for one that no list returned."""
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        text = base64.b64decode(padded, altchars=b"-_", validate=True).decode()
    except (ValueError, binascii.Error):
        raise InvalidRequest(BAD_CURSOR) from None
    if not text.isprintable():  # PostgreSQL takes no NUL in a parameter
        raise InvalidRequest(BAD_CURSOR)
    return text


def decode_offset(cursor: str | None) -> int:
    """Decode a position in a file, 0 without a cursor. Raises InvalidRequest."""
    text = decode_cursor(cursor) if cursor else "0"
    if not text.isascii() or not text.isdigit() or len(text) > _MAX_OFFSET_DIGITS:
        raise InvalidRequest(BAD_CURSOR)
    return int(text)
