"""Replacement of a model's own modules by ones that compute the same bits and keep less for the backward pass."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


def replace_modules(
    model: PreTrainedModel, device: torch.device | None, stand_in: Callable[[nn.Module], nn.Module | None]
) -> int:
    """Put what `stand_in` gives for a module in its place; return how many were replaced.

    On a CPU only: other devices have fused kernels.

    Args:
        device: that the model will compute on; None: where it is.
        stand_in: returns None for a module that stays.
    """
    if (device or model.device).type != "cpu":
        return 0
    found = [
        (parent, name, lean)
        for parent in model.modules()
        for name, child in parent.named_children()
        if (lean := stand_in(child)) is not None
    ]
    for parent, name, lean in found:
        setattr(parent, name, lean)
    return len(found)


def agree(theirs: nn.Module, ours: nn.Module, size: int, values: dict[str, Tensor], dtype: torch.dtype) -> bool:
    """Whether both compute the same bits on random rows of three sizes, in which `dtype` they are.

    Args:
        size: of a row.
        values: of the parameters, for both.
    """
    rows = torch.randn(3, 4, size, generator=torch.Generator().manual_seed(0))
    rows = (rows * torch.tensor([1e-3, 1.0, 30.0])[:, None, None]).to(dtype)
    one, other = (torch.func.functional_call(module, values, rows) for module in (theirs, ours))
    return one.dtype == other.dtype and torch.equal(one, other)
