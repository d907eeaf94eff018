"""Losses and rewards of the validation pairs under the policy of the moment."""

from collections.abc import Callable

import torch

from core.training.budget import TokenBudget
from core.training.dpo import PairForward, concatenate_pairs
from core.training.metrics import Columns, HostColumns, pair_columns, to_host
from core.training.reference_pass import row_groups


@torch.no_grad()
def evaluate_pairs(
    forward: PairForward, group_size: int, budget: TokenBudget, is_interrupted: Callable[[], bool]
) -> HostColumns | None:
    """The columns of `PairColumn` for all pairs of the split; None when interrupted.

    Args:
        group_size: the pairs an objective sees together: those of an optimizer step, so that losses compare.
        is_interrupted: asked between two groups.
    """
    parts: list[Columns] = []
    for rows in row_groups(len(forward.data), group_size):
        if is_interrupted():
            return None
        batches = forward.pack(rows, budget.tokens)
        policy = concatenate_pairs([forward.policy_logps(batch) for batch in batches])
        known = [part for part in (forward.reference_logps(batch) for batch in batches) if part is not None]
        reference = concatenate_pairs(known) if known else None
        indices = [row for batch in batches for row in batch.indices]
        parts.append(pair_columns(indices, policy, reference, forward.objective(policy, reference)))
    return to_host(parts, range(len(forward.data)))
