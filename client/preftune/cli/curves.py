"""Curves in a terminal: braille characters of two by four dots."""

import math
from collections.abc import Mapping, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

COLOURS = ("cyan", "green", "red", "yellow")
_BLANK = 0x2800
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bits of the dots by row and column within a character."""

Curve = Sequence[tuple[float, float]]
"""(x, y), x ascending."""


def plot(curves: Mapping[str, Curve], width: int, height: int) -> RenderableType:
    """Draw the curves in `width` by `height` characters, with the range of y at the side and a legend."""
    known = {name: curve for name, curve in curves.items() if curve}
    if not known:
        return Text("no points yet", "dim")
    low = min(y for curve in known.values() for _, y in curve)
    high = max(y for curve in known.values() for _, y in curve)
    first = min(curve[0][0] for curve in known.values())
    last = max(curve[-1][0] for curve in known.values())
    cells = [[(_BLANK, "")] * width for _ in range(height)]
    for colour, curve in zip(COLOURS, known.values(), strict=False):
        for x, y in curve:
            column = _place(x, first, last, 2 * width)
            row = 4 * height - 1 - _place(y, low, high, 4 * height)
            bits, _ = cells[row // 4][column // 2]
            cells[row // 4][column // 2] = (bits | _DOTS[row % 4][column % 2], colour)
    table = Table.grid(padding=(0, 1))
    for number, line in enumerate(cells):
        label = format(high, ".4g") if number == 0 else (format(low, ".4g") if number == height - 1 else "")
        table.add_row(Text(label.rjust(9), "dim"), Text.assemble(*((chr(bits), colour) for bits, colour in line)))
    table.add_row(Text(""), _legend(known, last))
    return table


def _legend(curves: Mapping[str, Curve], last: float) -> Text:
    text = Text(f"step {last:.0f} ", "dim")
    for colour, (name, curve) in zip(COLOURS, curves.items(), strict=False):
        text.append(f" {name} ", colour).append(format(curve[-1][1], ".4f"))
    return text


def _place(value: float, low: float, high: float, size: int) -> int:
    if high <= low:
        return size // 2
    return min(size - 1, math.floor((value - low) / (high - low) * size))
