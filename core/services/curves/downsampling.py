"""Downsampling of curves: the ends, the extremes, and the extremes of equal parts are kept."""

from collections.abc import Collection, Hashable, Mapping, Sequence
from itertools import chain, islice

import numpy as np
from numpy.typing import NDArray

from core.services.curves.chosen_points import PointT

Positions = NDArray[np.int64]
Columns = Mapping[str, NDArray[np.float64]]
"""Curves by name, the one that matters most first; NaN where a point has no value."""


def choose_among(points: Sequence[PointT], max_points: int, names: Collection[str]) -> list[PointT]:
    """Return `max_points` of more points, in order. `names` are the curves that matter; none: all."""
    curves = list(names) or sorted({name for point in points for name in point.values})
    columns = {name: _column([point.values.get(name) for point in points]) for name in curves}
    chosen = _choose_positions([(point.stage, point.split) for point in points], columns, max_points)
    return [points[position] for position in chosen]


def _column(values: list[float | None]) -> NDArray[np.float64]:
    return np.array(values, np.float64)  # null becomes NaN


def _choose_positions(series: Sequence[Hashable], columns: Columns, max_points: int) -> list[int]:
    """Return positions of at most `max_points` points, ascending. `series` is each point's curve.

    Each series gets its share. Chosen first are its ends, then each curve's highest and lowest, then the highest and
    lowest of the main curve in equal parts.
    """
    groups: dict[Hashable, list[int]] = {}
    for position, key in enumerate(series):
        groups.setdefault(key, []).append(position)
    chosen: set[int] = set()
    left = max_points
    for number, group in enumerate(sorted(groups.values(), key=len)):
        picked = _choose(np.asarray(group), left // (len(groups) - number), columns)
        chosen |= picked
        left -= len(picked)
    return sorted(chosen)


def _choose(group: Positions, budget: int, columns: Columns) -> set[int]:
    if len(group) <= budget:
        return set(group.tolist())
    ends = (int(group[-1]), int(group[0]))
    wanted = chain(ends, *(_extremes(group, column) for column in columns.values()))
    chosen = set(islice(dict.fromkeys(wanted), budget))
    num_parts = max(1, (budget - len(chosen)) // 2)
    main = columns.get("loss", next(iter(columns.values()), np.full(int(group[-1]) + 1, np.nan)))
    parts = (_extremes(part, main) or [int(part[0])] for part in np.array_split(group, num_parts) if len(part))
    fill = (position for position in dict.fromkeys(chain.from_iterable(parts)) if position not in chosen)
    return chosen | set(islice(fill, budget - len(chosen)))


def _extremes(group: Positions, column: NDArray[np.float64]) -> list[int]:
    """Return the indices of the curve's lowest and highest value; none if it has no value."""
    values = column[group]
    if np.isnan(values).all():
        return []
    return [int(group[np.nanargmin(values)]), int(group[np.nanargmax(values)])]
