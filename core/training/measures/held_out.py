"""Held-out results of the policy with their uncertainty, beside baselines that need no training.

Baselines judge the same pairs: the policy before DPO by how likely it finds the responses (the SFT policy, or the base
model without SFT), as a whole and per token, and the rule that the longer response wins.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from core.training.data.encoded import EncodedData
from core.training.observer import JsonValue
from core.training.seeding import derive_seed
from core.training.steps.pair_table import PairTable
from core.training.steps.reference_logps import SplitLogps

NUM_RESAMPLES = 4000
CONFIDENCE = 0.95

Verdicts = NDArray[np.float64]
"""[N] 1 where the chosen response wins, 0 where it loses, 0.5 for a tie."""


def describe_held_out(
    data: EncodedData, rewards: PairTable, reference: SplitLogps | None, seed: int
) -> dict[str, JsonValue]:
    """Return accuracies of policy and baselines with bootstrap intervals, and the policy's improvement.

    Of unpaired rows only the policy's: there is no other response to choose from.
    """
    margins = rewards.last_chosen.astype(np.float64) - rewards.last_rejected
    policy = _verdicts(margins)
    is_paired = data.kind == "preference"
    baselines = {"longer_wins": _verdicts(data.first_lengths - data.second_lengths)} if is_paired else {}
    if reference is not None and is_paired:
        sums = reference.sums.astype(np.float64)
        baselines["before_dpo_likelihood"] = _verdicts(sums[:, 0] - sums[:, 1])
        per_token = sums / _scored_lengths(data)
        baselines["before_dpo_likelihood_per_token"] = _verdicts(per_token[:, 0] - per_token[:, 1])
    generator = np.random.default_rng(derive_seed(seed, "bootstrap"))
    return {
        "num_pairs": len(data),
        "reward_accuracy": _with_interval(policy, generator),
        "mean_margin": float(margins.mean()) if np.isfinite(margins).all() else None,
        "baselines": {name: _with_interval(verdicts, generator) for name, verdicts in baselines.items()},
        "better_than": {name: _with_interval(policy - verdicts, generator) for name, verdicts in baselines.items()},
    }


def _scored_lengths(data: EncodedData) -> NDArray[np.int64]:
    """Scored tokens of both responses, over which their log-probabilities are summed, [N, 2]."""
    rows = (data.row(index) for index in range(len(data)))
    return np.array([(row.first_scored.sum(), row.second_scored.sum()) for row in rows], np.int64).clip(1)


def _verdicts(margins: NDArray[np.generic]) -> Verdicts:
    signs: Verdicts = np.sign(np.nan_to_num(margins.astype(np.float64)))
    return (signs + 1) / 2


def _with_interval(values: Verdicts, generator: np.random.Generator) -> Mapping[str, JsonValue]:
    """Return the mean and its percentile bootstrap interval over pairs.

    The values are few and repeat, so a resample is a draw of how often each comes.
    """
    levels, counts = np.unique(values, return_counts=True)
    draws = generator.multinomial(len(values), counts / len(values), size=NUM_RESAMPLES)
    means = draws @ levels / len(values)
    low, high = np.quantile(means, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return {"value": float(values.mean()), "low": float(low), "high": float(high)}
