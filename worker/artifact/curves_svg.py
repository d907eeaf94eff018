"""The curves of a run as one SVG picture: text only, no plotting library, readable without a server."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from core.domain.training import metric_names as names
from core.services.views import MetricPointView

PANEL_WIDTH, PANEL_HEIGHT, GAP = 360, 220, 20
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 28, 26
MAX_POINTS = 400
"""Points of one line; more would only make the file larger."""
COLOURS = ("#2563eb", "#d97706", "#059669", "#dc2626")


@dataclass(frozen=True)
class Line:
    label: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    title: str
    lines: Sequence[Line]


def draw_curves(points: Sequence[MetricPointView]) -> str:
    """Draw losses, rewards, margins and accuracies that were measured; empty panels are left out."""
    panels = [panel for panel in _panels(points) if panel.lines]
    columns = 2
    rows = max(1, -(-len(panels) // columns))
    width = columns * PANEL_WIDTH + (columns + 1) * GAP
    height = rows * PANEL_HEIGHT + (rows + 1) * GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for number, panel in enumerate(panels):
        x = GAP + (number % columns) * (PANEL_WIDTH + GAP)
        y = GAP + (number // columns) * (PANEL_HEIGHT + GAP)
        parts += [f'<g transform="translate({x} {y})">', *_draw_panel(panel), "</g>"]
    return "\n".join([*parts, "</svg>", ""])


def _panels(points: Sequence[MetricPointView]) -> list[Panel]:
    def line(label: str, stage: str, split: str, name: str) -> Line:
        found = [
            (float(point.step), value)
            for point in points
            if (point.stage.value, point.split) == (stage, split) and (value := point.values.get(name)) is not None
        ]
        return Line(label, _thinned(found))

    wanted = [
        Panel("SFT loss (nats a token)", [line(split, "sft", split, names.LOSS) for split in ("train", "validation")]),
        Panel(
            "SFT token accuracy",
            [line(split, "sft", split, names.MEAN_TOKEN_ACCURACY) for split in ("train", "validation")],
        ),
        Panel("DPO loss", [line(split, "dpo", split, names.LOSS) for split in ("train", "validation")]),
        Panel("reward model loss", [line(split, "reward", split, names.LOSS) for split in ("train", "validation")]),
        Panel(
            "implicit rewards, train",
            [line(side, "dpo", "train", f"rewards/{side}") for side in ("chosen", "rejected")],
        ),
        Panel("rewards, train", [line(side, "reward", "train", f"rewards/{side}") for side in ("chosen", "rejected")]),
        *(
            Panel(title, [line(split, stage, split, name) for split in ("train", "validation")])
            for stage in ("dpo", "reward")
            for title, name in (("reward margin", names.REWARD_MARGINS), ("reward accuracy", names.REWARD_ACCURACIES))
        ),
        Panel("calibration error", [line("validation", "reward", "validation", names.CALIBRATION_ERROR)]),
    ]
    return [Panel(panel.title, [line for line in panel.lines if line.points]) for panel in wanted]


def _thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    step = -(-len(points) // MAX_POINTS)
    return [*points[:: max(1, step)], *points[-1:]] if step > 1 else points


def _draw_panel(panel: Panel) -> Iterable[str]:
    x_low, x_high = _range(x for line in panel.lines for x, _ in line.points)
    y_low, y_high = _range(y for line in panel.lines for _, y in line.points)
    inner_width, inner_height = PANEL_WIDTH - LEFT - RIGHT, PANEL_HEIGHT - TOP - BOTTOM

    def place(x: float, y: float) -> str:
        across = LEFT + (x - x_low) / (x_high - x_low) * inner_width
        down = TOP + (y_high - y) / (y_high - y_low) * inner_height
        return f"{across:.1f},{down:.1f}"

    yield f'<text x="{LEFT}" y="14" font-weight="600">{escape(panel.title)}</text>'
    yield (f'<rect x="{LEFT}" y="{TOP}" width="{inner_width}" height="{inner_height}" fill="none" stroke="#d1d5db"/>')
    for value, y in ((y_high, TOP + 9), (y_low, TOP + inner_height)):
        yield f'<text x="{LEFT - 4}" y="{y}" text-anchor="end" fill="#6b7280">{value:.3g}</text>'
    for value, x, anchor in ((x_low, LEFT, "start"), (x_high, LEFT + inner_width, "end")):
        yield f'<text x="{x}" y="{PANEL_HEIGHT - 10}" text-anchor="{anchor}" fill="#6b7280">{value:.0f}</text>'
    for number, line in enumerate(panel.lines):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(place(x, y) for x, y in line.points)
        yield f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{path}"/>'
        x = LEFT + inner_width - 80 * (len(panel.lines) - number)
        yield f'<text x="{x + 20}" y="14" fill="{colour}">{escape(line.label)}</text>'


def _range(values: Iterable[float]) -> tuple[float, float]:
    found = list(values)
    low, high = min(found), max(found)
    return (low, high) if high > low else (low - 0.5, high + 0.5)
