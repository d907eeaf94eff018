"""Pictures of reward accuracy and win rate against divergence: a point for each policy, the Pareto front as a line."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from core.services.comparisons import text
from core.services.comparisons.comparisons import Comparison, PolicyPoint
from core.services.comparisons.win_rates import JudgedPoint, WinRates

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 60, 170, 16, 44
NUM_TICKS = 5
RADIUS = 5
PLACES = ((0, -9, "middle"), (0, 18, "middle"), (8, 4, "start"), (-8, 4, "end"))
"""Places of a label beside its point, the first free one is taken: pixels to the right, down, and its anchor."""
LETTER_WIDTH, LETTER_HEIGHT = 7, 12
Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""
COLORS = ("#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2", "#be185d", "#4d7c0f")


class _Scale:
    """Maps values to pixels, with a margin of a twentieth on both sides."""

    def __init__(self, values: list[float], first: float, last: float) -> None:
        low, high = min(values), max(values)
        spread = (high - low) or abs(high) or 1.0
        margin = spread / 20
        self.low, self.high = (max(0.0, low - margin) if low >= 0 else low - margin), high + margin
        self._first, self._last = first, last

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self._first + share * (self._last - self._first), 1)

    def ticks(self) -> list[float]:
        return [self.low + (self.high - self.low) * number / (NUM_TICKS - 1) for number in range(NUM_TICKS)]


@dataclass(frozen=True, kw_only=True)
class Dot:
    """A policy in the picture."""

    place: int
    """Place of its job among those that are compared."""
    step: int
    kl: float
    value: float
    is_published: bool
    is_on_front: bool


def accuracy_svg(comparison: Comparison) -> str:
    """Return the picture of reward accuracy as SVG; a sentence where no evaluation has both figures."""
    dots = _dots(
        (place, point, point.reward_accuracy) for place, job in enumerate(comparison.jobs) for point in job.points
    )
    if not dots:
        return "<p>No evaluation has both figures: rewards and the divergence are measured on held-out rows.</p>"
    return _picture(comparison, dots, "reward accuracy")


def win_rates_svg(comparison: Comparison, rates: WinRates) -> str:
    """Return the picture of win rates as SVG; empty where the divergence of none of the policies is known."""
    places = {job.job_id: place for place, job in enumerate(comparison.jobs)}
    dots = _dots((places[point.job_id], point, point.win_rate.value) for point in rates.points)
    return _picture(comparison, dots, "win rate") if dots else ""


def _dots(points: Iterable[tuple[int, PolicyPoint | JudgedPoint, float | None]]) -> list[Dot]:
    """Return the points that have a place in a picture: their job's place, themselves, their value."""
    return [
        Dot(
            place=place,
            step=point.step,
            kl=point.kl,
            value=value,
            is_published=point.is_published,
            is_on_front=point.is_on_front,
        )
        for place, point, value in points
        if point.step is not None and point.kl is not None and value is not None
    ]


def _picture(comparison: Comparison, dots: Sequence[Dot], measure: str) -> str:
    x = _Scale([dot.kl for dot in dots], LEFT, WIDTH - RIGHT)
    y = _Scale([dot.value for dot in dots], HEIGHT - BOTTOM, TOP)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" width="100%">']
    parts.append(f"<title>{measure.capitalize()} against divergence from the reference</title>")
    parts += _axes(x, y, measure)
    parts.append(_front(sorted((dot for dot in dots if dot.is_on_front), key=lambda dot: dot.kl), x, y))
    for dot in dots:
        color = COLORS[dot.place % len(COLORS)]
        job = comparison.jobs[dot.place]
        told = f"{text.label(job)}, step {dot.step}: {dot.kl:.4g} nats, {measure} {dot.value:.4g}"
        radius, fill = (RADIUS, color) if dot.is_published else (3, "none")
        parts.append(
            f'<circle cx="{x(dot.kl)}" cy="{y(dot.value)}" r="{radius}" fill="{fill}" '
            f'stroke="{color}"><title>{escape(told)}</title></circle>'
        )
    parts += _labels([
        (x(dot.kl), y(dot.value), f"β {comparison.jobs[dot.place].beta:g}")
        for dot in dots
        if dot.is_published and comparison.jobs[dot.place].beta is not None
    ])  # fmt: skip
    for place, job in enumerate(comparison.jobs[:16]):
        top, color = TOP + 8 + 18 * place, COLORS[place % len(COLORS)]
        parts.append(f'<circle cx="{WIDTH - RIGHT + 16}" cy="{top}" r="4" fill="{color}"/>')
        parts.append(_text(WIDTH - RIGHT + 26, TOP + 12 + 18 * place, text.label(job)[:22]))
    return "".join([*parts, "</svg>"])


def _labels(points: list[tuple[float, float, str]]) -> list[str]:
    """Return labels that lie on no point and on no other label; one without a free place is left out."""
    taken = [(left - RADIUS, top - RADIUS, left + RADIUS, top + RADIUS) for left, top, _ in points]
    parts = []
    for left, top, words in points:
        for right, down, anchor in PLACES:
            box = _box(left + right, top + down, words, anchor)
            if box[0] < 0 or box[2] > WIDTH or any(_overlaps(box, other) for other in taken):
                continue
            taken.append(box)
            parts.append(_text(left + right, top + down, words, anchor))
            break
    return parts


def _box(left: float, top: float, words: str, anchor: str) -> Box:
    width = LETTER_WIDTH * len(words)
    start = left - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
    return start, top - LETTER_HEIGHT, start + width, top


def _overlaps(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _axes(x: _Scale, y: _Scale, measure: str) -> list[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = [f'<path d="M{LEFT} {TOP}V{bottom}H{right}" fill="none" stroke="#6b7280"/>']
    parts += [_text(x(value), bottom + 16, f"{value:.3g}", "middle") for value in x.ticks()]
    parts += [_text(LEFT - 6, y(value) + 4, f"{value:.3f}", "end") for value in y.ticks()]
    parts.append(_text((LEFT + right) / 2, HEIGHT - 8, "KL to the reference, nats per response", "middle"))
    parts.append(_text(LEFT + 4, TOP + 2, measure))
    return parts


def _front(front: Sequence[Dot], x: _Scale, y: _Scale) -> str:
    """Return a staircase: between two points of the front the value of the lower one can be had."""
    path = ""
    for dot in front:
        path += f"H{x(dot.kl)}V{y(dot.value)}" if path else f"M{x(dot.kl)} {y(dot.value)}"
    return f'<path d="{path}" fill="none" stroke="#9ca3af" stroke-dasharray="4 3"/>' if path else ""


def _text(left: float, top: float, words: str, anchor: str = "start") -> str:
    return f'<text x="{left}" y="{top}" font-size="12" text-anchor="{anchor}" fill="#111827">{escape(words)}</text>'
