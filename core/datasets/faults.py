"""Faults of a row or file, raised by parts of the checker and caught by the checker; never shown raw."""

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from core.datasets.advice.advice import Advice
from core.domain.issue_codes import IssueCode


class Note(NamedTuple):
    """A remark to report about one row."""

    code: IssueCode
    detail: str
    pointer: str | None = None


class RowFault(Exception):
    """Raised for a row that cannot be used."""

    def __init__(
        self, code: IssueCode, detail: str, pointer: str | None = None, *, advice: Sequence[Advice] = ()
    ) -> None:
        super().__init__(detail)
        self.note = Note(code, detail, pointer)
        self.advice = advice
        """Uploads that would take the row, not tried yet."""


class FileFault(Exception):
    """Raised for a file that is refused, whatever `on_error` says."""

    def __init__(
        self,
        code: IssueCode,
        detail: str,
        *,
        line: int | None = None,
        row: int | None = None,
        advice: Sequence[Advice] = (),
    ) -> None:
        super().__init__(detail)
        self.advice = advice
        """Uploads that would work, not tried yet."""
        self.code = code
        self.detail = detail
        self.line = line
        self.row = row


def quoted(text: str, max_chars: int = 40) -> str:
    """Quote a piece of the user's file safely for a terminal, a log and a page: short and printable."""
    shown = "".join(
        character
        if character.isprintable() and unicodedata.category(character)[0] != "C"
        else "\N{REPLACEMENT CHARACTER}"
        for character in text[:max_chars]
    )
    return f"'{shown}…'" if len(text) > max_chars else f"'{shown}'"


def listed(names: list[str], max_names: int = 8) -> str:
    shown = ", ".join(quoted(name) for name in names[:max_names])
    return f"{shown} and {len(names) - max_names} more" if len(names) > max_names else shown
