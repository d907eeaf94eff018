import math
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from core.services.curves.chosen_points import choose_points


@dataclass(frozen=True)
class Point:
    seq: int
    stage: str
    split: str
    values: dict[str, float | None]


def line(count: int, stage: str = "dpo", split: str = "train", start: int = 1) -> list[Point]:
    return [Point(start + i, stage, split, {"loss": math.sin(i / 7) + i / 1000}) for i in range(count)]


def test_few_points_stay_as_they_are() -> None:
    assert choose_points(line(10), 10) == line(10)


def test_ends_and_extremes_survive() -> None:
    points = line(1000)
    points[333] = Point(334, "dpo", "train", {"loss": 99.0})
    points[777] = Point(778, "dpo", "train", {"loss": -99.0})
    chosen = choose_points(points, 20)
    assert len(chosen) <= 20
    assert {1, 334, 778, 1000} <= {point.seq for point in chosen}


def test_every_curve_keeps_its_extremes() -> None:
    points = [Point(i, "dpo", "train", {"loss": 1.0, "a": float(i == 400), "b": -float(i == 600)}) for i in range(1000)]
    seqs = {point.seq for point in choose_points(points, 30)}
    assert {400, 600} <= seqs


def test_a_short_series_is_not_swallowed_by_a_long_one() -> None:
    points = line(1000) + line(5, split="validation", start=2000)
    chosen = choose_points(points, 40)
    assert [point.seq for point in chosen if point.split == "validation"] == [2000, 2001, 2002, 2003, 2004]
    assert len(chosen) > 30


values = st.dictionaries(st.sampled_from(["loss", "a", "b"]), st.one_of(st.none(), st.floats(-10, 10)), max_size=3)


@given(
    st.lists(st.tuples(st.sampled_from(["sft", "dpo"]), st.sampled_from(["train", "validation"]), values), max_size=60),
    st.integers(1, 30),
)
def test_never_more_than_asked_for_and_always_in_order(
    rows: list[tuple[str, str, dict[str, float | None]]], limit: int
) -> None:
    points = [Point(i + 1, *row) for i, row in enumerate(rows)]
    chosen = choose_points(points, limit)
    assert len(chosen) <= limit
    assert [point.seq for point in chosen] == sorted({point.seq for point in chosen})
    assert set(map(id, chosen)) <= set(map(id, points))
    assert bool(chosen) == bool(points)
