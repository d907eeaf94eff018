"""Implicit rewards of any responses, as training computes them: the same packing, the same losses' rewards.

Policy and reference are loaded one after the other, so that only one of them is in memory.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

from core.training.data.columns import HostColumns
from core.training.data.encoded import EncodedData
from core.training.data.order import row_groups
from core.training.data.packing import pack_step
from core.training.data.token_budget import TokenBudget
from core.training.losses.objective import Objective
from core.training.measures.evaluate_rows import evaluate_rows
from core.training.model.logps import pair_logps
from core.training.steps.figures import PairColumn
from core.training.steps.pairs import PairForward
from core.training.steps.reference_logps import SplitLogps

GROUP_ROWS = 64
"""Pairs that are sorted into micro-batches together."""

LoadModel = Callable[[], PreTrainedModel]


@dataclass(frozen=True)
class PairRewards:
    """Rewards of N pairs, and log-probabilities of their chosen responses."""

    chosen_rewards: np.ndarray
    rejected_rewards: np.ndarray
    chosen_logps: np.ndarray
    reference_chosen_logps: np.ndarray
    """NaN where the variant has no reference."""


def score_pairs(
    data: EncodedData, objective: Objective, load_policy: LoadModel, load_reference: LoadModel, max_tokens: int
) -> PairRewards:
    """Score pairs under policy and reference; `load_reference` is not called for a variant that needs none."""
    reference = None
    if objective.needs_reference:
        reference = SplitLogps.unknown(len(data))
        _fill(reference, load_reference(), data, max_tokens)
    forward = PairForward(load_policy(), data, objective, reference)
    host = evaluate_rows(forward, row_groups(len(data), GROUP_ROWS), TokenBudget(max_tokens), lambda: False)
    assert host is not None
    return _scores(host)


def _scores(host: HostColumns) -> PairRewards:
    return PairRewards(
        host.values[PairColumn.CHOSEN_REWARD],
        host.values[PairColumn.REJECTED_REWARD],
        host.values[PairColumn.CHOSEN_LOGP],
        host.values[PairColumn.CHOSEN_REFERENCE_LOGP],
    )


@torch.no_grad()
def _fill(reference: SplitLogps, model: PreTrainedModel, data: EncodedData, max_tokens: int) -> None:
    for group in row_groups(len(data), GROUP_ROWS):
        for batch in pack_step(data, group, max_tokens, model.device):
            rows = list(batch.indices)
            pairs = pair_logps(model, batch, needs_prefix_sums=True)
            for side, logps in enumerate((pairs.chosen, pairs.rejected)):
                reference.sums[rows, side] = logps.sums.cpu().numpy()
                reference.prefix_sums[rows, side] = logps.prefix_sums.cpu().numpy()
