"""Edits of a dataset's rows by line: some left out, others swapped, as users decide after a look at the pairs."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from core.domain.errors import InvalidRequest

_MAX_NAMED = 10


class UnknownLines(InvalidRequest):
    code = "unknown-lines"
    title = "The dataset has no such lines"


def edit_rows(rows: Path, target: Path, *, exclude_lines: Collection[int], swap_lines: Collection[int]) -> int:
    """Write `rows` without the excluded lines, with chosen and rejected (or the label) swapped on others.

    Returns how many rows are left. Raises UnknownLines for lines that no row has.
    """
    unused = {*exclude_lines, *swap_lines}
    excluded, swapped, num_rows = frozenset(exclude_lines), frozenset(swap_lines), 0
    with rows.open("rb") as source, target.open("wb") as output:
        for text in source:
            row = json.loads(text)
            unused.discard(row["line"])
            if row["line"] in excluded:
                continue
            num_rows += 1
            output.write(_dump(swapped_row(row)) if row["line"] in swapped else text)
    if unused:
        named = ", ".join(str(line) for line in sorted(unused)[:_MAX_NAMED])
        raise UnknownLines(f"No accepted row is on line {named}; exclude_lines and swap_lines must name lines of rows.")
    return num_rows


def as_demonstrations(rows: Path, target: Path) -> int:
    """Write what SFT learns from `rows` of any kind: chosen responses, those marked good, or the only ones.

    Returns how many rows that are.
    """
    num_rows = 0
    with rows.open("rb") as source, target.open("wb") as output:
        for text in source:
            row = json.loads(text)
            if not row.pop("label", True):
                continue
            if "chosen" in row:
                row["response"] = row.pop("chosen")
                del row["rejected"]
            num_rows += 1
            output.write(_dump(row))
    return num_rows


def swapped_row(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row with chosen and rejected, or its label, the other way; a demonstration has neither."""
    if "label" in row:
        return row | {"label": not row["label"]}
    if "chosen" in row:
        return row | {"chosen": row["rejected"], "rejected": row["chosen"]}
    return row


def _dump(row: dict[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"
