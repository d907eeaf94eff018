"""Figures of a metric point, computed from the values of every pair of a step.

Values stay on the device while the micro-batches run and come to the host in one transfer per step, as columns over
the rows of the step. The figures are formed there in float64, in the order of the rows, so that they do not depend on
how the step was cut into micro-batches.

Legend: B rows of the step, C columns.
"""

import math
import resource
import sys
from collections.abc import Sequence
from enum import IntEnum

import numpy as np
import torch
from numpy.typing import NDArray

from core.domain.training import metric_names as names
from core.training.data.columns import Columns
from core.training.losses.values import PairLogps, PairLosses

Figures = dict[str, float | None]


class PairColumn(IntEnum):
    """Names of the values kept of every pair."""

    LOSS = 0
    CHOSEN_REWARD = 1
    REJECTED_REWARD = 2
    CHOSEN_LOGP = 3
    REJECTED_LOGP = 4
    CHOSEN_REFERENCE_LOGP = 5
    """NaN without a reference."""
    LENGTH_DIFFERENCE = 6
    """Tokens of the chosen response over those of the rejected one."""


def pair_columns(rows: Sequence[int], policy: PairLogps, reference: PairLogps | None, result: PairLosses) -> Columns:
    """Compute the columns of `PairColumn`."""
    losses = result.losses.detach()
    known = torch.full_like(losses, math.nan) if reference is None else reference.chosen.sums
    values = (
        losses,
        result.chosen_rewards,
        result.rejected_rewards,
        policy.chosen.sums.detach(),
        policy.rejected.sums.detach(),
        known,
        policy.chosen.num_tokens - policy.rejected.num_tokens,
    )
    return Columns(tuple(rows), torch.stack([column.float() for column in values]))


def pair_figures(values: NDArray[np.float64]) -> Figures:
    """Average over all pairs, by the names of `core.domain.training.metric_names`.

    Args:
        values: [C, B] in the order of `PairColumn`, B at least 1.
    """
    margins = values[PairColumn.CHOSEN_REWARD] - values[PairColumn.REJECTED_REWARD]
    figures = margin_figures(values) | {
        names.CHOSEN_LOGPS: values[PairColumn.CHOSEN_LOGP].mean(),
        names.REJECTED_LOGPS: values[PairColumn.REJECTED_LOGP].mean(),
    }
    reference = values[PairColumn.CHOSEN_REFERENCE_LOGP]
    if not np.isnan(reference).any():
        figures[names.CHOSEN_LOGPS_FELL] = (values[PairColumn.CHOSEN_LOGP] < reference).mean()
    return finite(figures) | {names.LENGTH_CORRELATION: correlation(margins, values[PairColumn.LENGTH_DIFFERENCE])}


class RewardColumn(IntEnum):
    """Names of the values kept of every pair under a reward model; the first three are those of `PairColumn`."""

    LOSS = 0
    CHOSEN_REWARD = 1
    REJECTED_REWARD = 2
    LENGTH_DIFFERENCE = 3
    """Tokens of the chosen response over those of the rejected one."""


def reward_figures(values: NDArray[np.float64]) -> Figures:
    """Average over all pairs, by the names of `core.domain.training.metric_names`.

    Args:
        values: [C, B] in the order of `RewardColumn`, B at least 1.
    """
    margins = values[RewardColumn.CHOSEN_REWARD] - values[RewardColumn.REJECTED_REWARD]
    both = values[[RewardColumn.CHOSEN_REWARD, RewardColumn.REJECTED_REWARD]]
    figures = margin_figures(values) | {names.REWARDS: both.mean()}
    return finite(figures) | {names.LENGTH_CORRELATION: correlation(margins, values[RewardColumn.LENGTH_DIFFERENCE])}


def margin_figures(values: NDArray[np.float64]) -> dict[str, float]:
    """Average what follows from losses and rewards of pairs, the first three rows of [C, B]."""
    chosen, rejected = values[PairColumn.CHOSEN_REWARD], values[PairColumn.REJECTED_REWARD]
    margins = chosen - rejected
    with np.errstate(invalid="ignore"):  # what is infinite becomes None in `finite`
        p10, p50, p90 = np.percentile(margins, (10, 50, 90))
    return {
        names.LOSS: values[PairColumn.LOSS].mean(),
        names.CHOSEN_REWARDS: chosen.mean(),
        names.REJECTED_REWARDS: rejected.mean(),
        names.REWARD_MARGINS: margins.mean(),
        names.REWARD_ACCURACIES: (margins > 0).mean(),
        names.REWARD_TIES: (margins == 0).mean(),
        names.REWARD_MARGINS_P10: p10,
        names.REWARD_MARGINS_P50: p50,
        names.REWARD_MARGINS_P90: p90,
        names.GRADIENT_WEIGHT: gradient_weights(margins).mean(),
    }


def correlation(left: NDArray[np.float64], right: NDArray[np.float64]) -> float | None:
    """Pearson's correlation of [B] with [B]; None where one of them does not vary, or is not finite."""
    if not (np.isfinite(left).all() and np.isfinite(right).all()):
        return None
    left, right = left - left.mean(), right - right.mean()
    scale = math.sqrt(float(left @ left) * float(right @ right))
    return float(left @ right) / scale if scale > 0 else None


class UnpairedColumn(IntEnum):
    """Names of the values kept of every unpaired row."""

    LOSS = 0
    REWARD = 1
    LOGP = 2
    IS_GOOD = 3
    KL = 4
    """The step's estimate, the same for all its rows."""


def unpaired_figures(values: NDArray[np.float64]) -> Figures:
    """Average over all responses, and over those marked good (as chosen) and bad (as rejected); None where none is.

    Args:
        values: [C, B] in the order of `UnpairedColumn`, B at least 1.
    """
    rewards, logps = values[UnpairedColumn.REWARD], values[UnpairedColumn.LOGP]
    is_good = values[UnpairedColumn.IS_GOOD] > 0
    signed = np.where(is_good, rewards, -rewards)
    chosen, rejected = _mean(rewards[is_good]), _mean(rewards[~is_good])
    return finite(
        {
            names.LOSS: values[UnpairedColumn.LOSS].mean(),
            names.REWARDS: rewards.mean(),
            names.LOGPS: logps.mean(),
            names.KL: values[UnpairedColumn.KL].mean(),
            names.CHOSEN_REWARDS: chosen,
            names.REJECTED_REWARDS: rejected,
            names.REWARD_MARGINS: chosen - rejected,
            names.REWARD_ACCURACIES: (signed > 0).mean(),
            names.REWARD_TIES: (signed == 0).mean(),
            names.CHOSEN_LOGPS: _mean(logps[is_good]),
            names.REJECTED_LOGPS: _mean(logps[~is_good]),
        }
    )


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else math.nan


def gradient_weights(margins: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute sigmoid(-margin), without overflow (arXiv:2305.18290, section 4)."""
    weights: NDArray[np.float64] = 0.5 * (1.0 - np.tanh(0.5 * margins))
    return weights


def finite(figures: dict[str, float]) -> Figures:
    """Return plain floats; what is not finite becomes None, which JSON can hold."""
    return {name: float(value) if math.isfinite(value) else None for name, value in figures.items()}


def peak_memory_bytes(device: torch.device) -> int:
    """Peak memory so far: allocated on the GPU, or resident in the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
