"""Lists of the command line: a table for people, JSON lines or ids alone for programs. An id is never shortened."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from preftune.cli.console import err, fail, out

MAX_PAGE: Final = 100
"""Objects of a page of the API."""
MIN_CELLS: Final = 10
"""Width below which no column is shortened."""
_GAP: Final = "  "
Item = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a list."""

    title: str
    value: Callable[[Item], object]
    is_whole: bool = False
    """Never shortened, however narrow the terminal is."""
    is_number: bool = False
    may_go: bool = False
    """Left out of a terminal that is too narrow, the last one first; `--json` has it."""


def named(name: str, title: str | None = None, **options: Any) -> Column:
    """Return the column that shows a field as it is."""
    return Column(title=title or name.replace("_", " "), value=lambda item: item.get(name), **options)


def time_column(name: str, title: str, *, may_go: bool = False) -> Column:
    """Return the column that shows a time of the API to the minute, in UTC."""
    return Column(
        title=title, value=lambda item: (item.get(name) or "")[:16].replace("T", " "), is_whole=True, may_go=may_go
    )


def collect(page_of: Callable[..., Item], limit: int, max_page: int = MAX_PAGE) -> tuple[list[Item], bool]:
    """Return at most `limit` objects of all pages, and whether there are more."""
    found: list[Item] = []
    cursor: str | None = None
    while True:
        page = page_of(limit=min(max_page, limit - len(found)), cursor=cursor)
        found += page["data"]
        cursor = page["next_cursor"]
        if cursor is None or len(found) >= limit:
            return found, cursor is not None


def print_list(
    items: Sequence[Item],
    columns: Sequence[Column],
    *,
    as_json: bool,
    quiet: bool,
    has_more: bool = False,
    id_name: str = "id",
    nothing: str = "none",
) -> None:
    """Print a list to stdout; what it leaves out is said on stderr.

    `id_name`: the field that `--quiet` prints. `nothing`: what is said on stderr of an empty list.
    """
    if as_json and quiet:
        fail("--json and --quiet cannot be combined", code=2)
    if as_json:
        print_json_lines(items)
    elif quiet:
        for item in items:
            out.print(Text(str(item[id_name])), soft_wrap=True)
    elif items:
        _print_table(items, columns)
    else:
        err.print(nothing, markup=False)
    if has_more:
        shown = "this 1" if len(items) == 1 else f"these {len(items):,}"
        err.print(f"There are more than {shown}; see --limit.", markup=False)


def print_json_lines(items: Sequence[Item]) -> None:
    """Print each object as JSON in a line of its own."""
    for item in items:
        print(json.dumps(item))  # noqa: T201 - for programs: neither wrapped nor styled


def print_one(item: Item, show: Callable[[Item], None], *, as_json: bool) -> None:
    """Print an object as JSON, or as `show` does for people."""
    if as_json:
        print_json_lines([item])
    else:
        show(item)


def _print_table(items: Sequence[Item], columns: Sequence[Column]) -> None:
    cells = {column.title: [column.title, *(_cell(column.value(item)) for item in items)] for column in columns}
    widths = {title: max(map(cell_len, texts)) for title, texts in cells.items()}
    if out.is_terminal:
        columns = _fitting(columns, widths, out.width)
        widths = _shortened(columns, widths, out.width)
    for number in range(len(items) + 1):
        line = _line([cells[column.title][number] for column in columns], columns, widths)
        out.print(Text(line, "" if number else "bold"), soft_wrap=True)


def _fitting(columns: Sequence[Column], widths: Mapping[str, int], room: int) -> list[Column]:
    """Return the columns that a terminal of this width has room for."""
    kept = list(columns)
    while (
        _width(widths[column.title] if column.is_whole else min(widths[column.title], MIN_CELLS) for column in kept)
        > room
    ):
        unneeded = [column for column in kept if column.may_go]
        if not unneeded:
            break
        kept.remove(unneeded[-1])
    return kept


def _shortened(columns: Sequence[Column], widths: Mapping[str, int], room: int) -> dict[str, int]:
    """Return widths at which a line fits into the terminal, as far as columns may be shortened."""
    fitted = {column.title: widths[column.title] for column in columns}
    soft = [column.title for column in columns if not column.is_whole]
    for _ in range(_width(fitted.values()) - room):
        widest = max(soft, key=fitted.__getitem__, default=None)
        if widest is None or fitted[widest] <= MIN_CELLS:
            break
        fitted[widest] -= 1
    return fitted


def _width(widths: Iterable[int]) -> int:
    each = list(widths)
    return sum(each) + len(_GAP) * (len(each) - 1)


def _line(cells: Sequence[str], columns: Sequence[Column], widths: Mapping[str, int]) -> str:
    shown = []
    for text, column in zip(cells, columns, strict=True):
        width = widths[column.title]
        if cell_len(text) > width:
            text = set_cell_size(text, width - 1) + "…"
        padding = " " * (width - cell_len(text))
        shown.append(padding + text if column.is_number else text + padding)
    return _GAP.join(shown).rstrip()


def _cell(value: object) -> str:
    """Return a value as text of one line; what cannot be printed, such as an escape code, is replaced."""
    if value is None:
        return ""
    text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    return (
        text
        if text.isprintable()
        else "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
    )
