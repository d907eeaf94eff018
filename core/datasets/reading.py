"""Version of the reader, and comparison of rows read by an older version with the same file read today."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Final

READER_VERSION: Final = 3
"""Raised whenever a file that was accepted gives other rows.

1: the first release; messages are roles and contents only, texts are never read as turns.
2: tool calls, reasoning, weights, tools and documents are kept; texts that were rendered already are read as turns.
3: an empty turn of the assistant within a response has `train: false`; the turns of NeMo-Aligner's markers are read;
   a mapping that agrees with the file's own layout gives that layout's rows; answers whose rank and score disagree are
   refused.
"""
_LINE = re.compile(rb'\{"line":\s*(\d+)')
_KEPT_SINCE: Final = ("tool_calls", "reasoning_content", "train", "tool_call_id", "tools", "documents")
_KEYS: Final = (("system", b'"role":"system"'), *((name, f'"{name}":'.encode()) for name in _KEPT_SINCE))


@dataclass(kw_only=True)
class Difference:
    """Difference between a dataset's stored rows and those that its file gives today, in lines of the file."""

    num_changed: int = 0
    num_added: int = 0
    num_removed: int = 0
    first_line: int | None = None
    dropped: dict[str, int] = field(default_factory=dict)
    """What the stored rows lack, by key: in so many lines."""

    @property
    def is_none(self) -> bool:
        return self.first_line is None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def compare_rows(stored: Path, today: Path) -> Difference:
    """Compare rows in the order of the file. Memory: the rows of one line."""
    found, dropped = Difference(), Counter[str]()
    for line, before, after in _side_by_side(stored, today):
        if before == after:
            continue
        found.first_line = line if found.first_line is None else found.first_line
        found.num_added += before is None
        found.num_removed += after is None
        found.num_changed += before is not None and after is not None
        if before is not None and after is not None:
            dropped.update(name for name, key in _KEYS if key in after and key not in before)
    found.dropped = dict(dropped)
    return found


def _side_by_side(stored: Path, today: Path) -> Iterator[tuple[int, bytes | None, bytes | None]]:
    """Yield the rows of each line of either side; None where a side has none."""
    sides = [_by_line(stored), _by_line(today)]
    heads = [next(side, None) for side in sides]
    while any(heads):
        line = min(head[0] for head in heads if head)
        rows = [head[1] if head and head[0] == line else None for head in heads]
        yield line, rows[0], rows[1]
        heads = [
            next(side, None) if head and head[0] == line else head for side, head in zip(sides, heads, strict=True)
        ]


def _by_line(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        for line, rows in groupby(file, _line_of):
            yield line, b"".join(rows)


def _line_of(row: bytes) -> int:
    found = _LINE.match(row)
    return int(found[1]) if found else 0
