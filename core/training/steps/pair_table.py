"""Figures of every pair over the training run, kept by row for the pair report."""

import numpy as np
import torch
from torch import Tensor

from core.training.data.columns import Rewards


class PairTable:
    """Rewards of every training pair when it was first and last seen."""

    def __init__(self, num_rows: int) -> None:
        self.first_margins = np.full(num_rows, np.nan, np.float32)
        """[N] NaN for a pair not taken yet."""
        self.last_chosen = np.full(num_rows, np.nan, np.float32)
        self.last_rejected = np.full(num_rows, np.nan, np.float32)
        self.best_margins = np.full(num_rows, np.nan, np.float32)
        """[N] the largest that training has seen."""

    def record(self, rewards: Rewards) -> None:
        rows = np.asarray(rewards.rows)
        is_new = np.isnan(self.first_margins[rows])
        self.first_margins[rows[is_new]] = (rewards.chosen - rewards.rejected)[is_new]
        self.best_margins[rows] = np.fmax(self.best_margins[rows], rewards.chosen - rewards.rejected)
        self.settle(rewards)

    def settle(self, rewards: Rewards) -> None:
        """Set the last rewards to those under the final policy."""
        rows = np.asarray(rewards.rows)
        self.last_chosen[rows], self.last_rejected[rows] = rewards.chosen, rewards.rejected

    def state(self) -> dict[str, Tensor]:
        """Return the table as tensors that share its memory."""
        return {
            "first_margins": torch.from_numpy(self.first_margins),
            "last_chosen": torch.from_numpy(self.last_chosen),
            "last_rejected": torch.from_numpy(self.last_rejected),
            "best_margins": torch.from_numpy(self.best_margins),
        }
