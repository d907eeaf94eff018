"""Losses and rewards of the validation rows under the current policy."""

from collections.abc import Callable

import torch

from core.training.data.columns import Columns, HostColumns, to_host
from core.training.data.token_budget import TokenBudget
from core.training.steps.reference_pass import row_groups
from core.training.steps.task import RowForward


@torch.no_grad()
def evaluate_rows(
    forward: RowForward,
    group_size: int,
    budget: TokenBudget,
    is_interrupted: Callable[[], bool],
    *,
    by_prompt: bool = False,
) -> HostColumns | None:
    """Evaluate all rows of the split and return their columns; None when interrupted.

    Args:
        group_size: the rows an objective sees together: those of an optimizer step, so that losses compare.
        is_interrupted: asked between two groups.
        by_prompt: keep the rows of a prompt in one group, as in training.
    """
    parts: list[Columns] = []
    for rows in row_groups(forward.data, group_size, by_prompt=by_prompt):
        if is_interrupted():
            return None
        parts.append(forward.columns(forward.pack(rows, budget.tokens)))
    return to_host(parts, range(len(forward.data)))
