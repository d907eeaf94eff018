"""Successive halving: where the members of a sweep are compared on their way, and which of them go on.

The members train to the first rung, a share of their steps, and pause there; of all that have come to a rung the best
`1 / eta` go on to the next one, and those of the last rung to their end (arXiv:1502.07943).
"""

import math
from collections.abc import Sequence

from core.domain.training.metric_names import METRICS

MAX_ETA = 10
_ROUNDING = 1e-9


def plan_rungs(num_members: int, eta: int, min_share: float) -> list[float]:
    """Return the rungs, each as a share of a member's steps, ascending; none for a single member.

    So many that one member is left at the end, but none before `min_share`.
    """
    number = 0
    while eta**number < num_members:
        number += 1
    shares = (eta**-power for power in range(number, 0, -1))
    return [share for share in shares if share >= min_share - _ROUNDING]


def num_kept(number: int, eta: int) -> int:
    """Return how many of so many members go on from a rung."""
    return math.ceil(number / eta)


def work_share(num_members: int, eta: int, rungs: Sequence[float]) -> float:
    """Return the steps that all members take together, as a share of what they would take without rungs."""
    done, before, left = 0.0, 0.0, num_members
    for share in rungs:
        done += left * (share - before)
        before, left = share, num_kept(left, eta)
    return (done + left * (1 - before)) / num_members


def best_first(values: Sequence[float | None], metric: str) -> list[int]:
    """Return the places of the values, the best first; of equal ones the first, those without a value last."""
    sign = 1.0 if METRICS[metric].better == "lower" else -1.0

    def key(place: int) -> tuple[bool, float, int]:
        value = values[place]
        return (True, 0.0, place) if value is None else (False, sign * value, place)

    return sorted(range(len(values)), key=key)
