"""Losses and rewards of the validation rows under the current policy."""

from collections.abc import Callable, Sequence

import torch

from core.training.data.columns import Columns, HostColumns, to_host
from core.training.data.token_budget import TokenBudget
from core.training.steps.task import RowForward


@torch.no_grad()
def evaluate_rows(
    forward: RowForward, groups: Sequence[list[int]], budget: TokenBudget, is_interrupted: Callable[[], bool]
) -> HostColumns | None:
    """Evaluate all rows of the split and return their columns; None when interrupted.

    Args:
        groups: the rows an objective sees together: as many as of an optimizer step, so that losses compare.
        is_interrupted: asked between two groups.
    """
    parts: list[Columns] = []
    for rows in groups:
        if is_interrupted():
            return None
        parts.append(forward.columns(forward.pack(rows, budget.tokens)))
    return to_host(parts, range(len(forward.data)))
