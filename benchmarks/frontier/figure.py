"""The plot: reward against divergence from the SFT policy, a line for each run."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

WIDTH, HEIGHT = 860, 520
LEFT, RIGHT, TOP, BOTTOM = 64, 210, 24, 52
NUM_TICKS = 6
COLORS = {
    "sft": "#111827", "preferred-ft": "#6b7280", "unlikelihood": "#a16207", "dpo": "#2563eb", "ppo-true": "#dc2626",
    "ppo-learnt": "#f97316", "cdpo": "#0891b2", "ipo": "#7c3aed", "reference-free": "#059669",
}  # fmt: skip
DASHES = ("", "7 3", "3 3", "1 3")
"""Of the runs of one method, in their order."""


def figure_svg(runs: Mapping[str, Sequence[Mapping[str, Any]]], method_of: Mapping[str, str]) -> str:
    """Return the plot.

    Args:
        runs: points of each run, in order of their steps.
        method_of: method of each run, which chooses its colour.
    """
    points = [point for found in runs.values() for point in found]
    x = _Axis([0.0, *(point["kl"]["value"] for point in points)], LEFT, WIDTH - RIGHT)
    y = _Axis([point["reward"]["value"] for point in points], HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" font-family="sans-serif">',
        "<title>Reward against divergence from the SFT policy</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        *_frame(x, y),
    ]
    seen: dict[str, int] = {}
    for row, (name, found) in enumerate(runs.items()):
        method = method_of[name]
        dash = DASHES[seen.setdefault(method, 0) % len(DASHES)]
        seen[method] += 1
        parts += _run(name, found, COLORS.get(method, "#111827"), dash, x, y)
        parts += _legend(name, COLORS.get(method, "#111827"), dash, TOP + 10 + 18 * row)
    return "\n".join([*parts, "</svg>"]) + "\n"


class _Axis:
    """Maps values to pixels, with a margin on both sides."""

    def __init__(self, values: Sequence[float], first: float, last: float) -> None:
        low, high = min(values), max(values)
        spread = (high - low) or 1.0
        self.low, self.high = low - spread / 25, high + spread / 25
        self._first, self._last = first, last

    def __call__(self, value: float) -> float:
        return round(self._first + (value - self.low) / (self.high - self.low) * (self._last - self._first), 1)

    def ticks(self) -> list[float]:
        return [self.low + (self.high - self.low) * number / (NUM_TICKS - 1) for number in range(NUM_TICKS)]


def _frame(x: _Axis, y: _Axis) -> list[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    return [
        f'<path d="M{LEFT} {TOP}V{bottom}H{right}" fill="none" stroke="#6b7280"/>',
        *(_text(x(value), bottom + 18, f"{value:.1f}", "middle") for value in x.ticks()),
        *(_text(LEFT - 8, y(value) + 4, f"{value:.2f}", "end") for value in y.ticks()),
        _text((LEFT + right) / 2, HEIGHT - 12, "KL to the SFT policy, nats per continuation", "middle"),
        _text(LEFT + 6, TOP - 8, "ground-truth reward"),
    ]


def _run(name: str, found: Sequence[Mapping[str, Any]], color: str, dash: str, x: _Axis, y: _Axis) -> list[str]:
    places = [(x(point["kl"]["value"]), y(point["reward"]["value"])) for point in found]
    line = " ".join(f"{left},{top}" for left, top in places)
    parts = [f'<polyline points="{line}" fill="none" stroke="{color}" stroke-opacity="0.5" stroke-dasharray="{dash}"/>']
    for point, (left, top) in zip(found, places, strict=True):
        told = f"{name}, step {point['step']}: {point['kl']['value']:.2f} nats, reward {point['reward']['value']:.3f}"
        fill = color if point is found[-1] else "#fff"
        circle = f'<circle cx="{left}" cy="{top}" r="4" fill="{fill}" stroke="{color}">'
        parts.append(f"{circle}<title>{escape(told)}</title></circle>")
    return parts


def _legend(name: str, color: str, dash: str, top: float) -> list[str]:
    left = WIDTH - RIGHT + 18
    line = f'<path d="M{left} {top}h28" stroke="{color}" stroke-width="2" stroke-dasharray="{dash}"/>'
    return [line, _text(left + 36, top + 4, name)]


def _text(left: float, top: float, words: str, anchor: str = "start") -> str:
    return f'<text x="{left}" y="{top}" font-size="12" text-anchor="{anchor}" fill="#111827">{escape(words)}</text>'
