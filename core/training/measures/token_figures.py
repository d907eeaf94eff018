"""Held-out results of a supervised policy: loss, perplexity and token accuracy, beside the base model's.

Every scored token weighs the same, as in training. Tokens of one row are not independent, so intervals treat rows as
clusters: a figure is a ratio of sums over rows, and its standard error that of the linearised ratio.

Legend: N rows.
"""

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from core.training.data.columns import HostColumns
from core.training.measures.final_figures import Values, interval
from core.training.observer import JsonValue
from core.training.steps.sft import SftColumn


class TokenTable:
    """Values of every held-out row under the policy before its first update, and under the latest one evaluated."""

    def __init__(self, num_rows: int) -> None:
        self._base = np.full((len(SftColumn), num_rows), np.nan, np.float32)
        self._last = np.full((len(SftColumn), num_rows), np.nan, np.float32)

    def record(self, host: HostColumns, *, is_untrained: bool) -> None:
        self._last[:, host.rows] = host.values
        if is_untrained:
            self._base[:, host.rows] = host.values

    def state(self) -> dict[str, Tensor]:
        """Return the table as tensors that share its memory."""
        return {"base": torch.from_numpy(self._base), "last": torch.from_numpy(self._last)}

    def figures(self) -> dict[str, JsonValue]:
        """Return the latest policy's figures."""
        return token_figures(self._last.astype(np.float64))

    def base_figures(self) -> dict[str, JsonValue] | None:
        """Return the figures of the policy before its first update; None where they were not taken."""
        return None if np.isnan(self._base).all() else token_figures(self._base.astype(np.float64))

    def better_than_base(self) -> dict[str, JsonValue] | None:
        """Return by how much the latest policy is better, row by row compared; None without the base's values."""
        if np.isnan(self._base).all():
            return None
        base, last = self._base.astype(np.float64), self._last.astype(np.float64)
        num_tokens = last[SftColumn.NUM_TOKENS]
        return {
            "loss": _ratio(base[SftColumn.LOSS] - last[SftColumn.LOSS], num_tokens),
            "token_accuracy": _ratio(last[SftColumn.HITS] - base[SftColumn.HITS], num_tokens),
        }


def token_figures(values: Values) -> dict[str, JsonValue]:
    """Return loss and perplexity per token, and the share of tokens that were the likeliest, with 95 % intervals.

    Args:
        values: [C, N] in the order of `SftColumn`.
    """
    num_tokens = values[SftColumn.NUM_TOKENS]
    loss = _ratio(values[SftColumn.LOSS], num_tokens)
    return {
        "num_rows": values.shape[1],
        "num_tokens": int(num_tokens.sum()),
        "loss": loss,
        "perplexity": {name: _exp(value) for name, value in loss.items()},
        "token_accuracy": _within(_ratio(values[SftColumn.HITS], num_tokens), 0.0, 1.0),
    }


def _ratio(sums: Values, num_tokens: Values) -> Mapping[str, float | None]:
    """Return sum(sums) / sum(num_tokens) with its interval over rows, open where there is one row."""
    total, num_rows = float(num_tokens.sum()), len(sums)
    with np.errstate(invalid="ignore"):  # what is not finite becomes None
        value = float(sums.sum()) / total
        residuals = sums - value * num_tokens
        variance = float((residuals**2).sum()) * num_rows / (num_rows - 1) if num_rows > 1 else math.nan
    return interval(value, math.sqrt(variance) / total if variance >= 0 else math.nan)


def _exp(value: float | None) -> float | None:
    return None if value is None or value > 700 else math.exp(value)  # beyond, no float64 holds it


def _within(figure: Mapping[str, float | None], low: float, high: float) -> Mapping[str, float | None]:
    return {name: None if value is None else min(max(value, low), high) for name, value in figure.items()}
