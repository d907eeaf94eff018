"""Rewards of any responses, as training computes them: the same packing, the same losses' rewards, or a reward model's.

Policy and reference are loaded one after the other, so that only one of them is in memory.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from transformers import PreTrainedModel

from core.training.data.columns import HostColumns
from core.training.data.encoded import EncodedData
from core.training.data.order import row_groups
from core.training.data.packing import PackedBatch
from core.training.data.token_budget import TokenBudget
from core.training.losses.objective import Objective
from core.training.losses.values import PairLogps
from core.training.measures.evaluate_rows import evaluate_rows
from core.training.model.logps import TokenLogps
from core.training.steps.figures import PairColumn, RewardColumn
from core.training.steps.pairs import PairForward
from core.training.steps.reference_logps import SplitLogps
from core.training.steps.rewards import RewardForward

GROUP_ROWS = 64
"""Pairs that are sorted into micro-batches together."""

LoadModel = Callable[[], PreTrainedModel]


@dataclass(frozen=True)
class PairRewards:
    """Rewards of N pairs, and log-probabilities of their chosen responses."""

    chosen_rewards: np.ndarray
    rejected_rewards: np.ndarray
    chosen_logps: np.ndarray
    """NaN of a reward model."""
    reference_chosen_logps: np.ndarray
    """NaN where the variant has no reference, and of a reward model."""
    log_ratios: list[np.ndarray] | None = None
    """Log p of the policy minus that of the reference for each scored token of each chosen response, N times [L]."""


def score_pairs(
    data: EncodedData,
    objective: Objective,
    load_policy: LoadModel,
    load_reference: LoadModel,
    max_tokens: int,
    *,
    by_token: bool = False,
) -> PairRewards:
    """Score pairs under policy and reference.

    `load_reference` is not called for a variant that needs none, unless `by_token` asks for `log_ratios`. Each model
    runs every different text once.
    """
    reference, before = None, None
    if objective.needs_reference or by_token:
        known = _ScoredTokens(load_reference(), data, objective, None)
        reference = known.sums(max_tokens)
        before = known.chosen if by_token else None
        del known
    forward = _ScoredTokens(load_policy(), data, objective, reference if objective.needs_reference else None)
    host = evaluate_rows(forward, row_groups(len(data), GROUP_ROWS), TokenBudget(max_tokens), lambda: False)
    assert host is not None
    if before is None:
        return _scores(host, None)
    return _scores(host, [forward.chosen[row] - before[row] for row in range(len(data))])


def score_by_reward_model(data: EncodedData, model: PreTrainedModel, max_tokens: int) -> PairRewards:
    """Score pairs by a reward model, which has no log-probabilities."""
    forward, unknown = RewardForward(model, data), np.full(len(data), np.nan)
    host = evaluate_rows(forward, row_groups(len(data), GROUP_ROWS), TokenBudget(max_tokens), lambda: False)
    assert host is not None
    chosen, rejected = host.values[[RewardColumn.CHOSEN_REWARD, RewardColumn.REJECTED_REWARD]]
    return PairRewards(chosen, rejected, unknown, unknown)


@dataclass(frozen=True)
class _ScoredTokens(PairForward):
    """Forward pass that keeps log p of each scored token of each chosen response by row."""

    chosen: dict[int, np.ndarray] = field(default_factory=dict)

    def reduce(self, tokens: TokenLogps, batch: PackedBatch) -> PairLogps:
        parts = torch.split(tokens.values.float().cpu(), batch.num_scored_tokens.tolist())
        self.chosen.update(zip(batch.indices, (part.numpy() for part in parts), strict=False))
        return super().reduce(tokens, batch)

    def sums(self, max_tokens: int) -> SplitLogps:
        """Score all pairs, a group at a time."""
        found = SplitLogps.unknown(len(self.data))
        for group in row_groups(len(self.data), GROUP_ROWS):
            batches = self.pack(group, max_tokens)
            pairs = self.all_policy_logps(batches)
            rows = [row for batch in batches for row in batch.indices]
            for side, logps in enumerate((pairs.chosen, pairs.rejected)):
                found.sums[rows, side] = logps.sums.cpu().numpy()
                found.prefix_sums[rows, side] = logps.prefix_sums.cpu().numpy()
        return found


def _scores(host: HostColumns, log_ratios: list[np.ndarray] | None) -> PairRewards:
    return PairRewards(
        host.values[PairColumn.CHOSEN_REWARD],
        host.values[PairColumn.REJECTED_REWARD],
        host.values[PairColumn.CHOSEN_LOGP],
        host.values[PairColumn.CHOSEN_REFERENCE_LOGP],
        log_ratios,
    )
