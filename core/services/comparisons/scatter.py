"""Picture of reward accuracy against divergence: a point for each policy, the Pareto front as a line."""

from html import escape

from core.domain.training.comparisons import Point
from core.services.comparisons import text
from core.services.comparisons.comparisons import Comparison

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


def scatter_svg(comparison: Comparison) -> str:
    """Return the picture as SVG; a sentence where no evaluation has both figures."""
    plotted = [
        (place, point)
        for place, job in enumerate(comparison.jobs)
        for point in job.points
        if point.kl is not None and point.reward_accuracy is not None
    ]
    if not plotted:
        return "<p>No evaluation has both figures: rewards and the divergence are measured on held-out rows.</p>"
    x = _Scale([point.kl or 0.0 for _, point in plotted], LEFT, WIDTH - RIGHT)
    y = _Scale([point.reward_accuracy or 0.0 for _, point in plotted], HEIGHT - BOTTOM, TOP)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" width="100%">']
    parts.append("<title>Reward accuracy against divergence from the reference</title>")
    parts += _axes(x, y)
    parts.append(_front(comparison.front, x, y))
    for place, point in plotted:
        color = COLORS[place % len(COLORS)]
        fill = color if point.is_published else "none"
        job = comparison.jobs[place]
        told = f"{text.label(job)}, step {point.step}: {point.kl:.4g} nats, accuracy {point.reward_accuracy:.4g}"
        radius = RADIUS if point.is_published else 3
        parts.append(
            f'<circle cx="{x(point.kl or 0.0)}" cy="{y(point.reward_accuracy or 0.0)}" r="{radius}" fill="{fill}" '
            f'stroke="{color}"><title>{escape(told)}</title></circle>'
        )
    parts += _labels([
        (x(point.kl or 0.0), y(point.reward_accuracy or 0.0), f"β {comparison.jobs[place].beta:g}")
        for place, point in plotted
        if point.is_published and comparison.jobs[place].beta is not None
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


def _axes(x: _Scale, y: _Scale) -> list[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = [f'<path d="M{LEFT} {TOP}V{bottom}H{right}" fill="none" stroke="#6b7280"/>']
    parts += [_text(x(value), bottom + 16, f"{value:.3g}", "middle") for value in x.ticks()]
    parts += [_text(LEFT - 6, y(value) + 4, f"{value:.3f}", "end") for value in y.ticks()]
    parts.append(_text((LEFT + right) / 2, HEIGHT - 8, "KL to the reference, nats per response", "middle"))
    parts.append(_text(LEFT + 4, TOP + 2, "reward accuracy"))
    return parts


def _front(front: list[Point], x: _Scale, y: _Scale) -> str:
    """Return a staircase: between two points of the front the accuracy of the lower one can be had."""
    path = ""
    for point in front:
        path += f"H{x(point.kl)}V{y(point.accuracy)}" if path else f"M{x(point.kl)} {y(point.accuracy)}"
    return f'<path d="{path}" fill="none" stroke="#9ca3af" stroke-dasharray="4 3"/>' if path else ""


def _text(left: float, top: float, words: str, anchor: str = "start") -> str:
    return f'<text x="{left}" y="{top}" font-size="12" text-anchor="{anchor}" fill="#111827">{escape(words)}</text>'
