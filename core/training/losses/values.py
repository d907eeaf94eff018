"""Log-probabilities as the losses take them, and the values that the losses return.

Legend: B pairs of a micro-batch. Log-probabilities are in nats. Everything is float32 here, whatever the precision
of the model: bfloat16 tells a sum of 300 nats only to the nearest 2. (float64 is let through for gradient checks.)
"""

from dataclasses import dataclass

import torch
from torch import Tensor

_PRECISE = (torch.float32, torch.float64)


@dataclass(frozen=True)
class ResponseLogps:
    """One response of each of B rows, under one model.

    Raises:
        TypeError: a log-probability in less than float32, or token counts that are not int64.
        ValueError: the tensors are not all of the same shape [B].
    """

    sums: Tensor
    """[B] sum over the scored response tokens of log p."""
    num_tokens: Tensor
    """[B] int64, at least 1: scored tokens, counted from the mask."""
    prefix_sums: Tensor
    """[B] sum over the first min(|y_w|, |y_l|) scored tokens (for `ld_dpo`); equals `sums` when unused."""
    log_weights: Tensor | None = None
    """[B] detached: mean over t of log p_t - log(sum over the vocabulary of p²) (for `wpo`), else None."""

    def __post_init__(self) -> None:
        # Only what the tensors' metadata tells: reading a value would make the device wait.
        if self.num_tokens.dtype != torch.int64:
            raise TypeError(f"num_tokens must be int64, got {self.num_tokens.dtype}")
        floats = {"sums": self.sums, "prefix_sums": self.prefix_sums, "log_weights": self.log_weights}
        for name, tensor in floats.items():
            if tensor is None:
                continue
            if tensor.dtype not in _PRECISE:
                raise TypeError(f"{name} must be float32, got {tensor.dtype}")
            if tensor.shape != self.num_tokens.shape or tensor.dim() != 1:
                raise ValueError(
                    f"{name} must be one value per row: {tuple(tensor.shape)} against {tuple(self.num_tokens.shape)}"
                )


@dataclass(frozen=True)
class PairLogps:
    """Both responses of each of B pairs, under one model."""

    chosen: ResponseLogps
    rejected: ResponseLogps
    lists: Tensor | None = None
    """[B] int64: equal for pairs with the same prompt and chosen response; None: each pair is a list of its own."""


@dataclass(frozen=True)
class PairLosses:
    """One loss per pair, to be reduced by the loop as sum / pairs of the optimizer step."""

    losses: Tensor
    """[B], with its graph."""
    chosen_rewards: Tensor
    """[B] detached implicit rewards: beta * log-ratio, by the score of the variant."""
    rejected_rewards: Tensor
    """[B] detached."""


@dataclass(frozen=True)
class UnpairedLosses:
    """One loss per unpaired response, to be reduced by the loop as sum / responses of the optimizer step."""

    losses: Tensor
    """[B], with its graph."""
    rewards: Tensor
    """[B] detached implicit rewards: beta * log-ratio."""
