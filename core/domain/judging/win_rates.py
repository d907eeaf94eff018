"""Win rates with intervals over prompts, and how often two who judged the same pairs agree.

Answers to one prompt are alike, so the prompts are what is counted, not the pairs: the variance is that of the sums of
each prompt (Liang & Zeger 1986, "sandwich"), with Student's t for few prompts.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from core.domain.arenas.arenas import Interval

_Z_95 = 1.959963984540054
_MAX_STEPS = 50
_PENALTY = 1e-2
"""Weight of a ridge on the length coefficient, which keeps the fit finite where length decides everything."""
_MAX_LOGIT = 12.0


@dataclass(frozen=True, kw_only=True)
class JudgedPair:
    prompt: int
    """Which prompt it answers."""
    score: float
    """1 where the first answer is better, 0 where the second is, 0.5 for a tie."""
    length_difference: float
    """Characters of the first answer minus those of the second."""


class Agreement(NamedTuple):
    num_pairs: int
    """Pairs that both decided, ties among them."""
    value: float
    low: float
    high: float
    kappa: float | None
    """Cohen's, against agreement by chance; None where that is certain."""


def t_quantile(degrees: int) -> float:
    """Return the 97.5 % quantile of Student's t (Cornish-Fisher; within 1 % from 3 degrees on)."""
    if degrees < 1:
        return math.inf
    if degrees < 3:
        return (12.706, 4.303)[degrees - 1]
    z = _Z_95
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / degrees + second / degrees**2 + third / degrees**3


def win_rate(pairs: Sequence[JudgedPair]) -> Interval:
    """Return the share that the first model wins, a tie counting half, with an interval of 95 % over prompts.

    Wilson's (1927, eq. 5), with as many observations as independent ones of this variance would be; never more than
    there are prompts where the prompts do not vary at all. Without a pair: 0.5, from 0 to 1.
    """
    if not pairs:
        return Interval(0.5, 0.0, 1.0)
    share = sum(pair.score for pair in pairs) / len(pairs)
    sums = _sums_by_prompt((pair.prompt, pair.score - share) for pair in pairs)
    if len(sums) < 2:
        return Interval(share, 0.0, 1.0)
    variance = len(sums) / (len(sums) - 1) * sum(value**2 for value in sums) / len(pairs) ** 2
    spread = share * (1 - share)
    number = spread / variance if variance > 0 and spread > 0 else float(len(sums))
    return _wilson(share, number, t_quantile(len(sums) - 1))


def length_controlled(pairs: Sequence[JudgedPair]) -> Interval:
    """Return the win rate that pairs of equal length would have: a logistic regression on the difference of lengths.

    P(first wins) = σ(a + b·tanh(d/s)), s the standard deviation of the differences (as in arXiv:2404.04475, without its
    terms for instructions); the result is σ(a), with the interval of `a` over prompts.
    """
    number = len(pairs)
    scale = math.sqrt(sum(pair.length_difference**2 for pair in pairs) / number) if number else 0.0
    if scale == 0:
        return win_rate(pairs)
    lengths = [math.tanh(pair.length_difference / scale) for pair in pairs]
    scores = [pair.score for pair in pairs]
    a, b = _fit(lengths, scores)
    probabilities = [_sigmoid(a + b * x) for x in lengths]
    bread = _inverse(_information(lengths, probabilities))
    meat = [[0.0, 0.0], [0.0, 0.0]]
    gradients: dict[int, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for pair, x, p in zip(pairs, lengths, probabilities, strict=True):
        gradients[pair.prompt][0] += pair.score - p
        gradients[pair.prompt][1] += (pair.score - p) * x
    if len(gradients) < 2:
        return Interval(_sigmoid(a), 0.0, 1.0)
    for first, second in gradients.values():
        meat[0][0] += first * first
        meat[0][1] += first * second
        meat[1][1] += second * second
    row = bread[0]
    variance = row[0] ** 2 * meat[0][0] + 2 * row[0] * row[1] * meat[0][1] + row[1] ** 2 * meat[1][1]
    half = t_quantile(len(gradients) - 1) * math.sqrt(len(gradients) / (len(gradients) - 1) * variance)
    if half == 0:
        return _wilson(_sigmoid(a), float(len(gradients)), t_quantile(len(gradients) - 1))
    return Interval(_sigmoid(a), _sigmoid(a - half), _sigmoid(a + half))


def agreement(scores: Iterable[tuple[float, float]]) -> Agreement:
    """Return how often two say the same of a pair: of (one's score, the other's score) for pairs that both decided."""
    both = list(scores)
    number = len(both)
    if not number:
        return Agreement(0, 0.0, 0.0, 1.0, None)
    same = sum(first == second for first, second in both) / number
    chance = sum(
        sum(first == value for first, _ in both) * sum(second == value for _, second in both)
        for value in (0.0, 0.5, 1.0)
    ) / (number * number)
    interval = _wilson(same, float(number), _Z_95)
    kappa = (same - chance) / (1 - chance) if chance < 1 else None
    return Agreement(number, interval.value, interval.low, interval.high, kappa)


def _sums_by_prompt(values: Iterable[tuple[int, float]]) -> list[float]:
    sums: dict[int, float] = defaultdict(float)
    for prompt, value in values:
        sums[prompt] += value
    return list(sums.values())


def _wilson(share: float, number: float, quantile: float) -> Interval:
    square = quantile**2
    middle = (share + square / (2 * number)) / (1 + square / number)
    spread = share * (1 - share) / number + square / (4 * number**2)
    half = quantile / (1 + square / number) * math.sqrt(spread)
    return Interval(share, max(0.0, middle - half), min(1.0, middle + half))


def _fit(lengths: Sequence[float], scores: Sequence[float]) -> tuple[float, float]:
    """Return a and b of the likeliest curve, by Newton's steps."""
    a = b = 0.0
    for _ in range(_MAX_STEPS):
        probabilities = [_sigmoid(a + b * x) for x in lengths]
        first = sum(y - p for y, p in zip(scores, probabilities, strict=True)) - _PENALTY * a
        second = sum((y - p) * x for x, y, p in zip(lengths, scores, probabilities, strict=True)) - _PENALTY * b
        inverse = _inverse(_information(lengths, probabilities))
        step_a = inverse[0][0] * first + inverse[0][1] * second
        step_b = inverse[1][0] * first + inverse[1][1] * second
        a = min(_MAX_LOGIT, max(-_MAX_LOGIT, a + step_a))
        b = min(_MAX_LOGIT, max(-_MAX_LOGIT, b + step_b))
        if abs(step_a) + abs(step_b) < 1e-10:
            break
    return a, b


def _information(lengths: Sequence[float], probabilities: Sequence[float]) -> tuple[float, float, float]:
    weights = [p * (1 - p) for p in probabilities]
    return (
        sum(weights) + _PENALTY,
        sum(w * x for w, x in zip(weights, lengths, strict=True)),
        sum(w * x * x for w, x in zip(weights, lengths, strict=True)) + _PENALTY,
    )


def _inverse(matrix: tuple[float, float, float]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the inverse of a symmetric matrix (11, 12, 22)."""
    first, mixed, second = matrix
    determinant = first * second - mixed * mixed
    return (second / determinant, -mixed / determinant), (-mixed / determinant, first / determinant)


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))
