"""Fronts, paired differences and their intervals."""

import math

import pytest

from core.domain.training.comparisons import (
    PairKey,
    Point,
    changed_sides,
    mean_with_interval,
    pair_loss,
    paired_difference,
    pareto_front,
)


def points(*places: tuple[float, float]) -> list[Point]:
    return [Point(job_id=f"job_{n}", step=n, kl=kl, accuracy=accuracy) for n, (kl, accuracy) in enumerate(places)]


def test_the_front_has_what_no_other_point_beats() -> None:
    found = pareto_front(points((3, 0.7), (1, 0.6), (2, 0.6), (1, 0.5), (5, 0.7), (0, 0.0), (4, 0.9)))
    assert [(point.kl, point.accuracy) for point in found] == [(0, 0.0), (1, 0.6), (3, 0.7), (4, 0.9)]
    assert pareto_front([]) == []


def test_a_mean_has_the_interval_of_its_standard_error() -> None:
    found = mean_with_interval([1.0, 2.0, 3.0, 4.0])
    half = 1.96 * math.sqrt((5 / 3) / 4)
    assert (found.value, found.low, found.high) == pytest.approx((2.5, 2.5 - half, 2.5 + half))
    assert mean_with_interval([2.0]).low is None


def single(margins: dict[int, float]) -> dict[PairKey, float]:
    """Margins of lines that are one pair each."""
    return {(line, 1): margin for line, margin in margins.items()}


def test_differences_are_of_the_same_pairs_only() -> None:
    mine = single({1: 0.5, 2: -0.5, 3: 1.0, 9: 5.0})
    theirs = single({1: -0.5, 2: -0.1, 3: 2.0, 8: -5.0})
    found = paired_difference(mine, theirs)
    assert found is not None
    assert (found.num_pairs, found.gained, found.lost) == (3, 1, 0)
    assert found.accuracy.value == pytest.approx(1 / 3)
    losses = [pair_loss(mine[line, 1]) - pair_loss(theirs[line, 1]) for line in (1, 2, 3)]
    assert found.loss.value == pytest.approx(sum(losses) / 3)
    assert paired_difference(single({1: 1.0}), single({2: 1.0})) is None


def test_every_pair_of_a_ranked_list_counts_where_both_have_all_of_them() -> None:
    mine = {(1, 1): 1.0, (1, 2): 1.0, (1, 3): -1.0, (2, 1): 1.0}
    theirs = {(1, 1): 1.0, (1, 2): -1.0, (1, 3): -1.0, (2, 1): -1.0, (2, 2): 1.0}
    found = paired_difference(mine, theirs)
    assert found is not None
    assert (found.num_pairs, found.gained, found.lost) == (3, 1, 0)
    assert changed_sides(mine, theirs, 9) == [(1, 2)]


def test_a_margin_of_nothing_is_wrong_and_losses_do_not_overflow() -> None:
    mine, theirs = single({1: 0.0, 2: 3.0, 3: 1.0}), single({1: 0.1, 2: -9.0, 3: 2.0})
    assert changed_sides(mine, theirs, 9) == [(2, 1), (1, 1)]
    assert changed_sides(mine, theirs, 1) == [(2, 1)]
    assert pair_loss(0.0) == pytest.approx(math.log(2))
    assert (pair_loss(-1e6), pair_loss(1e6)) == (1e6, 0.0)
