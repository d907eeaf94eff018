"""Fewer points that draw the same curve: ends, extremes, and the extremes of equal parts."""

from collections.abc import Collection, Iterable, Sequence
from itertools import chain
from typing import Protocol, TypeVar


class Point(Protocol):
    @property
    def seq(self) -> int: ...
    @property
    def stage(self) -> str: ...
    @property
    def split(self) -> str: ...
    @property
    def values(self) -> dict[str, float | None]: ...


PointT = TypeVar("PointT", bound=Point)


def choose_points(points: Sequence[PointT], max_points: int, names: Collection[str] = ()) -> list[PointT]:
    """At most `max_points` of them, in order. `names` are the curves that matter; none: all.

    Each (stage, split) gets its share. Chosen first are its ends, then each curve's highest and lowest, then the
    highest and lowest of the first curve in equal parts.
    """
    if len(points) <= max_points:
        return list(points)
    series: dict[tuple[str, str], list[PointT]] = {}
    for point in points:
        series.setdefault((point.stage, point.split), []).append(point)
    chosen: set[int] = set()
    left = max_points
    for position, group in enumerate(sorted(series.values(), key=len)):
        share = left // (len(series) - position)
        picked = _choose(group, share, names)
        chosen |= picked
        left -= len(picked)
    return [point for point in points if point.seq in chosen]


def _choose(points: list[PointT], budget: int, names: Collection[str]) -> set[int]:
    if len(points) <= budget:
        return {point.seq for point in points}
    curves = list(names) or sorted({name for point in points for name in point.values})
    wanted: Iterable[PointT] = [points[-1], points[0]]
    wanted = chain(wanted, *(_extremes(points, name) for name in curves))
    chosen = _first(wanted, budget)
    num_parts = max(1, (budget - len(chosen)) // 2)
    parts = (points[len(points) * i // num_parts : len(points) * (i + 1) // num_parts] for i in range(num_parts))
    main = "loss" if "loss" in curves or not curves else curves[0]
    fill = chain.from_iterable(_extremes(part, main) or part[:1] for part in parts)
    return chosen | _first((point for point in fill if point.seq not in chosen), budget - len(chosen))


def _extremes(points: Sequence[PointT], name: str) -> list[PointT]:
    known = [(value, point) for point in points if (value := point.values.get(name)) is not None]
    if not known:
        return []
    return [min(known, key=lambda pair: pair[0])[1], max(known, key=lambda pair: pair[0])[1]]


def _first(points: Iterable[PointT], count: int) -> set[int]:
    chosen: set[int] = set()
    for point in points:
        if len(chosen) >= count:
            break
        chosen.add(point.seq)
    return chosen
