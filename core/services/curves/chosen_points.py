"""Choice of the points of a curve that are shown, or kept."""

from collections.abc import Collection, Sequence
from typing import Protocol, TypeVar


class Point(Protocol):
    @property
    def stage(self) -> str: ...
    @property
    def split(self) -> str: ...
    @property
    def values(self) -> dict[str, float | None]: ...


PointT = TypeVar("PointT", bound=Point)


def choose_points(points: Sequence[PointT], max_points: int, names: Collection[str] = ()) -> list[PointT]:
    """Return at most `max_points` points in order. `names` are the curves that matter; none: all."""
    if len(points) <= max_points:
        return list(points)
    from core.services.curves.downsampling import choose_among  # noqa: PLC0415 - see LOCAL_IMPORTS

    return choose_among(points, max_points, names)
