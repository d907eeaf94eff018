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
from core.training.model.logps import pair_logps, token_logps
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

    `load_reference` is not called for a variant that needs none, unless `by_token` asks for `log_ratios`.
    """
    reference, before = None, None
    if objective.needs_reference or by_token:
        model = load_reference()
        if objective.needs_reference:
            reference = SplitLogps.unknown(len(data))
            _fill(reference, model, data, max_tokens)
        before = _by_token(model, data, max_tokens) if by_token else None
        del model
    policy = load_policy()
    forward = PairForward(policy, data, objective, reference)
    host = evaluate_rows(forward, row_groups(len(data), GROUP_ROWS), TokenBudget(max_tokens), lambda: False)
    assert host is not None
    if before is None:
        return _scores(host, None)
    after = _by_token(policy, data, max_tokens)
    return _scores(host, [mine - theirs for mine, theirs in zip(after, before, strict=True)])


@torch.no_grad()
def _by_token(model: PreTrainedModel, data: EncodedData, max_tokens: int) -> list[np.ndarray]:
    """Return log p of each scored token of each chosen response."""
    found: dict[int, np.ndarray] = {}
    for group in row_groups(len(data), GROUP_ROWS):
        for batch in pack_step(data, group, max_tokens, model.device):
            values = token_logps(model, batch).values.float().cpu()
            chosen = torch.split(values, batch.num_scored_tokens.tolist())[: len(batch.indices)]
            found |= {row: part.numpy() for row, part in zip(batch.indices, chosen, strict=True)}
    return [found[row] for row in range(len(data))]


def _scores(host: HostColumns, log_ratios: list[np.ndarray] | None) -> PairRewards:
    return PairRewards(
        host.values[PairColumn.CHOSEN_REWARD],
        host.values[PairColumn.REJECTED_REWARD],
        host.values[PairColumn.CHOSEN_LOGP],
        host.values[PairColumn.CHOSEN_REFERENCE_LOGP],
        log_ratios,
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
