"""Pages of lists that are in the order of ids, newest first or by name."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

from core.services.cursors import decode_cursor, encode_cursor
from core.services.views import Page

Item = TypeVar("Item")


class HasId(Protocol):
    @property
    def id(self) -> str: ...


def read_cursor(cursor: str | None) -> str | None:
    """Return the id that a page begins behind; None: the list's begin. Raises InvalidRequest."""
    return decode_cursor(cursor) if cursor else None


def page_of(found: Sequence[HasId], limit: int, data: list[Item]) -> Page[Item]:
    """Return a page with what is shown of the first `limit` rows; where one more was found, another page follows."""
    return Page(data=data, next_cursor=encode_cursor(found[limit - 1].id) if len(found) > limit else None)
