"""Comparison of trained policies: reward accuracy against divergence, paired differences, and which one to take."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Z = 1.96
"""Standard errors of a 95 % interval."""
PairKey = tuple[int, int]
"""Line of a dataset, and place among its held-out pairs, from 1: a ranked list is many pairs of one line."""


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


def common_pairs(margins: Mapping[PairKey, float], others: Mapping[PairKey, float]) -> list[PairKey]:
    """Return the pairs that both hold out, in order.

    A line of which they hold out different numbers of pairs is left out: which of its pairs is which is not known.
    """
    mine, theirs = (Counter(line for line, _ in found) for found in (margins, others))
    return sorted(pair for pair in margins if mine[pair[0]] == theirs[pair[0]])


def paired_difference(margins: Mapping[PairKey, float], others: Mapping[PairKey, float]) -> PairedDifference | None:
    """Compare reward margins pair by pair; None without a common one. Positive accuracy, negative loss: better."""
    pairs = [(margins[pair], others[pair]) for pair in common_pairs(margins, others)]
    if not pairs:
        return None
    return PairedDifference(
        num_pairs=len(pairs),
        accuracy=mean_with_interval([verdict(mine) - verdict(theirs) for mine, theirs in pairs]),
        loss=mean_with_interval([pair_loss(mine) - pair_loss(theirs) for mine, theirs in pairs]),
        gained=sum(mine > 0 >= theirs for mine, theirs in pairs),
        lost=sum(theirs > 0 >= mine for mine, theirs in pairs),
    )


def changed_sides(margins: Mapping[PairKey, float], others: Mapping[PairKey, float], limit: int) -> list[PairKey]:
    """Return the pairs that one gets right and the other does not, those that moved furthest first."""
    pairs = [pair for pair in common_pairs(margins, others) if (margins[pair] > 0) != (others[pair] > 0)]
    return sorted(pairs, key=lambda pair: (-abs(margins[pair] - others[pair]), pair))[:limit]


def verdict(margin: float) -> float:
    """Return 1 where the chosen response has the larger reward, else 0, as reward accuracy counts."""
    return 1.0 if margin > 0 else 0.0


def pair_loss(margin: float) -> float:
    """Return -log sigmoid(margin), without overflow."""
    return max(0.0, -margin) + math.log1p(math.exp(-abs(margin)))
