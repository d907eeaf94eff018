"""Tab-separated text without quotes, in which line breaks, tabs and backslashes are escaped by a backslash.

PostgreSQL's `COPY … TO` (text format), `mysql --batch` and jq's `@tsv` write it. Its bytes can be those of a table with
backslashes as well, so it is taken for what it is only where the whole file bears it out: every backslash begins an
escape, at least one backslash is doubled, no cell is in quotes, and no escape is the beginning of a LaTeX command.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from core.datasets.options import MIB

_ESCAPE = re.compile(r"\\(.?)", re.DOTALL)
_BYTE_ESCAPE = re.compile(rb"\\(.?)", re.DOTALL)
_MEANINGS: Final = {"\\": "\\", "n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v"}
_LETTERS: Final = frozenset(letter.encode() for letter in (*_MEANINGS, "N"))
_QUOTED_CELL = re.compile(rb'(?:^|[\t\n])"[^\t\n]*"(?=[\t\r\n]|$)')
_LATEX = re.compile(
    rb"\\(?:frac|theta|times|text\w*|tau|tan|to|top|beta|bar|begin|bf|big\w*|rho|right\w*|vec|varphi|varepsilon|nabla|neq?"
    rb"|nu|not\w*|forall|flat)(?![a-z])"
)
_MAX_LINE_BYTES: Final = 16 * MIB
"""A longer line is over the limit of every row."""
_NULL: Final = "\\N"


@dataclass(frozen=True, kw_only=True)
class EscapeCensus:
    num_doubled: int = 0
    is_consistent: bool = True

    @property
    def is_escaped(self) -> bool:
        return self.is_consistent and self.num_doubled > 0


def take_census(chunks: Iterable[bytes]) -> EscapeCensus:
    """Read to the end, or to the first backslash or quoted cell that such a file would not have."""
    num_doubled, tail = 0, b""
    for chunk in chunks:
        data = tail + chunk
        end = data.rfind(b"\n") + 1  # a line is looked at as a whole
        if not end and len(data) > _MAX_LINE_BYTES:
            return EscapeCensus(is_consistent=False)
        found = _count_doubled(data[:end])
        if found is None:
            return EscapeCensus(is_consistent=False)
        num_doubled += found
        tail = data[end:]
    found = _count_doubled(tail)
    return EscapeCensus(num_doubled=num_doubled + (found or 0), is_consistent=found is not None)


def _count_doubled(data: bytes) -> int | None:
    """Count doubled backslashes; None for what no such file has."""
    if _QUOTED_CELL.search(data):
        return None
    if b"\\" not in data:
        return 0
    escapes = _BYTE_ESCAPE.findall(data)
    if not _LETTERS.issuperset(escapes):
        return None
    doubled = escapes.count(b"\\")
    return None if _LATEX.search(data.replace(b"\\\\", b"")) else doubled


def unescape(cell: str) -> str | None:
    """Return the unescaped cell; None where it is null."""
    if "\\" not in cell:
        return cell
    if cell == _NULL:
        return None
    return _ESCAPE.sub(lambda match: _MEANINGS.get(match[1], match[0]), cell)
