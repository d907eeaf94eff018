"""Comparison of trained policies: reward accuracy against divergence, paired differences, and which one to take."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Z = 1.96
"""Standard errors of a 95 % interval."""


@dataclass(frozen=True, kw_only=True)
class Estimated:
    """A mean with its 95 % interval; the ends are None where there is one value only."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class Point:
    """A policy at one evaluation on held-out rows."""

    job_id: str
    step: int
    kl: float
    """Estimated divergence from the reference, nats per response."""
    accuracy: float
    """Reward accuracy on the held-out rows."""


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """What one policy is better by than another on the same held-out pairs."""

    num_pairs: int
    accuracy: Estimated
    loss: Estimated
    """Difference of -log sigmoid(reward margin), nats per pair."""
    gained: int
    """Pairs that this one gets right and the other does not."""
    lost: int


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other one beats: none has more accuracy at no more divergence; by divergence."""
    front: list[Point] = []
    for point in sorted(points, key=lambda item: (item.kl, -item.accuracy, item.step, item.job_id)):
        if not front or point.accuracy > front[-1].accuracy:
            front.append(point)
    return front


def mean_with_interval(values: Sequence[float]) -> Estimated:
    """Return the mean ± 1.96 standard errors; `values` has at least one."""
    number = len(values)
    mean = math.fsum(values) / number
    if number == 1:
        return Estimated(value=mean, low=None, high=None)
    variance = math.fsum((value - mean) ** 2 for value in values) / (number - 1)
    half = Z * math.sqrt(variance / number)
    return Estimated(value=mean, low=mean - half, high=mean + half)


def paired_difference(margins: Mapping[int, float], others: Mapping[int, float]) -> PairedDifference | None:
    """Compare reward margins by line; None without a common line. Positive accuracy, negative loss: better."""
    lines = sorted(margins.keys() & others.keys())
    if not lines:
        return None
    pairs = [(margins[line], others[line]) for line in lines]
    return PairedDifference(
        num_pairs=len(pairs),
        accuracy=mean_with_interval([verdict(mine) - verdict(theirs) for mine, theirs in pairs]),
        loss=mean_with_interval([pair_loss(mine) - pair_loss(theirs) for mine, theirs in pairs]),
        gained=sum(mine > 0 >= theirs for mine, theirs in pairs),
        lost=sum(theirs > 0 >= mine for mine, theirs in pairs),
    )


def changed_sides(margins: Mapping[int, float], others: Mapping[int, float], limit: int) -> list[int]:
    """Return the lines that one gets right and the other does not, those that moved furthest first."""
    lines = [line for line in margins.keys() & others.keys() if (margins[line] > 0) != (others[line] > 0)]
    return sorted(lines, key=lambda line: (-abs(margins[line] - others[line]), line))[:limit]


def verdict(margin: float) -> float:
    """Return 1 where the chosen response has the larger reward, else 0, as reward accuracy counts."""
    return 1.0 if margin > 0 else 0.0


def pair_loss(margin: float) -> float:
    """Return -log sigmoid(margin), without overflow."""
    return max(0.0, -margin) + math.log1p(math.exp(-abs(margin)))
