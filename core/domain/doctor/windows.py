"""Windows over the last values of some curves."""

from collections import deque
from collections.abc import Sequence

from core.domain.trainer_protocol import MetricPoint


class Window:
    """Window of complete points; one that lacks a value, or has null there, is skipped."""

    def __init__(self, names: Sequence[str], size: int) -> None:
        self._names = tuple(names)
        self._rows: deque[tuple[float, ...]] = deque(maxlen=size)

    def add(self, point: MetricPoint) -> bool:
        """Add a point and return whether the window is full."""
        values = [point.values.get(name) for name in self._names]
        known = tuple(value for value in values if value is not None)
        if len(known) == len(values):
            self._rows.append(known)
        return len(self._rows) == self._rows.maxlen

    def mean(self, name: str) -> float:
        """Return the mean over the rows, at least one."""
        position = self._names.index(name)
        return sum(row[position] for row in self._rows) / len(self._rows)

    def __len__(self) -> int:
        return len(self._rows)
