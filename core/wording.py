"""Wording of messages: numbers with their noun, articles, and what was probably meant."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

_LIKENESS: Final = 0.7
_MAX_CHARS: Final = 100
"""Longer names are not compared: the time grows with the product of the lengths."""


def counted(number: int, one: str, many: str | None = None) -> str:
    """Return the number with its noun: `1 row`, `1,234 rows`."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "did you mean `…`? " with the closest of the known names, or nothing where none is close."""
    if len(name) > _MAX_CHARS:
        return ""
    each = [*known]
    found = [other for other in each if sorted(other) == sorted(name)]  # letters in another order
    found = found or get_close_matches(name, each, n=1, cutoff=_LIKENESS)
    return f"did you mean `{found[0]}`? " if found else ""
