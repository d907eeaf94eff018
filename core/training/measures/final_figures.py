"""What a run ends with: held-out figures with their uncertainty, and training figures as means over an epoch.

A step's own figures are those of one batch, the last one perhaps of a single pair: they say nothing of a policy.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.domain.training import metric_names as names
from core.training.observer import JsonValue
from core.training.steps.figures import Figures, PairColumn, UnpairedColumn

Z = 1.96
"""Standard errors of a 95 % interval."""
AVERAGED = {
    "loss": names.LOSS,
    "reward_accuracy": names.REWARD_ACCURACIES,
    "reward_margin": names.REWARD_MARGINS,
    "token_accuracy": names.MEAN_TOKEN_ACCURACY,
}
"""Names in the results, and of the figures in metric points."""

Values = NDArray[np.float64]


def held_out_figures(values: Values, *, is_paired: bool) -> dict[str, JsonValue]:
    """Return loss, reward accuracy and reward margin of all held-out rows, each with a 95 % interval.

    Loss and margin: mean ± 1.96 standard errors over rows, open where there is one row; accuracy: Wilson's interval.

    Args:
        values: [C, N] in the order of `PairColumn`, or of `UnpairedColumn`.
    """
    with np.errstate(invalid="ignore"):  # what is not finite becomes None
        return _held_out_figures(values, is_paired=is_paired)


def _held_out_figures(values: Values, *, is_paired: bool) -> dict[str, JsonValue]:
    losses = values[PairColumn.LOSS]
    if is_paired:
        margins = values[PairColumn.CHOSEN_REWARD] - values[PairColumn.REJECTED_REWARD]
        margin, right = _mean(margins), margins > 0
    else:
        is_good = values[UnpairedColumn.IS_GOOD] > 0
        rewards = values[UnpairedColumn.REWARD]
        margin, right = _difference(rewards[is_good], rewards[~is_good]), np.where(is_good, rewards, -rewards) > 0
    return {
        "num_rows": len(losses),
        "loss": _mean(losses),
        "reward_accuracy": _share(int(right.sum()), len(right)),
        "reward_margin": margin,
    }


def _mean(values: Values) -> JsonValue:
    error = float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan
    return interval(float(values.mean()) if len(values) else math.nan, error)


def _difference(left: Values, right: Values) -> JsonValue:
    """Difference of two means."""
    if not len(left) or not len(right):
        return interval(math.nan, math.nan)
    variances = [part.var(ddof=1) / len(part) if len(part) > 1 else math.nan for part in (left, right)]
    return interval(float(left.mean() - right.mean()), math.sqrt(sum(variances)))


def interval(value: float, error: float) -> Mapping[str, float | None]:
    """Return value ± 1.96 standard errors; None for what is not finite."""
    ends = {"value": value, "low": value - Z * error, "high": value + Z * error}
    return {name: end if math.isfinite(end) else None for name, end in ends.items()}


def _share(count: int, total: int) -> JsonValue:
    """Share with its Wilson interval."""
    share, scale = count / total, 1 + Z**2 / total
    centre = (share + Z**2 / (2 * total)) / scale
    half = Z * math.sqrt(share * (1 - share) / total + Z**2 / (4 * total**2)) / scale
    return {"value": share, "low": max(0.0, centre - half), "high": min(1.0, centre + half)}


@dataclass
class EpochMeans:
    """Means of training figures over the rows of an epoch, each as its row was when it was trained on."""

    current: dict[str, Any] = field(default_factory=dict)
    """The epoch on its way: number, rows, and for each figure its sum and how many rows it is over."""
    complete: dict[str, Any] = field(default_factory=dict)
    """The last whole one."""

    def add(self, epoch: int, figures: Figures, num_rows: int, *, weight: float, is_last: bool) -> None:
        """Add a step's figures, means over its rows or tokens, `weight` of them; `is_last`: the epoch ends with it."""
        if self.current.get("epoch") != epoch + 1:
            self.current = {"epoch": epoch + 1, "num_rows": 0, "sums": {}}
        self.current["num_rows"] += num_rows
        for name, metric in AVERAGED.items():
            value = figures.get(metric)
            if value is not None:
                total, count = self.current["sums"].get(name, (0.0, 0))
                self.current["sums"][name] = [total + value * weight, count + weight]
        if is_last:
            self.complete, self.current = self.current, {}

    def facts(self) -> dict[str, JsonValue]:
        return {"current": self.current, "complete": self.complete}

    def restore(self, facts: Mapping[str, Any]) -> None:
        """Take over what a checkpoint holds; nothing from one of an earlier version."""
        self.current, self.complete = dict(facts.get("current", {})), dict(facts.get("complete", {}))

    def means(self) -> dict[str, JsonValue]:
        """Return the means of the last whole epoch, or of the part of the first one; empty before the first step."""
        found = self.complete or self.current
        if not found:
            return {}
        means: dict[str, JsonValue] = {name: total / count for name, (total, count) in found["sums"].items()}
        return {"epoch": found["epoch"], "is_whole_epoch": bool(self.complete), "num_rows": found["num_rows"], **means}
