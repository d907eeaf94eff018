"""One step of a reward model on pairs: rewards, losses, gradients."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from core.training.data.columns import Columns, HostColumns, Rewards
from core.training.data.encoded import EncodedData
from core.training.data.packing import PackedBatch, pack_step
from core.training.losses.reward import bradley_terry_loss
from core.training.model.joint_use import runs_apart
from core.training.model.rewards import batch_rewards
from core.training.observer import Stage, TrainedStage
from core.training.ranks import ALONE, Ranks, Turn
from core.training.steps.figures import Figures, RewardColumn, reward_figures
from core.training.steps.task import PreferenceTask


@dataclass(frozen=True)
class RewardForward:
    """Forward pass over a split's pairs: the rewards of both responses."""

    model: PreTrainedModel
    data: EncodedData
    center_rewards_coefficient: float = 0.0
    ranks: Ranks = ALONE

    reference: ClassVar[None] = None

    def pack(self, rows: Sequence[int], max_tokens: int) -> list[PackedBatch]:
        padding = self.model.config.get_text_config().pad_token_id
        return pack_step(self.data, rows, max_tokens, self.model.device, self.ranks.size, padding)

    def values(self, batch: PackedBatch) -> tuple[Tensor, Tensor]:
        """Return losses, [B] with a graph, and the values of `RewardColumn`, [C, B]."""
        chosen, rejected = batch_rewards(self.model, batch).chunk(2)
        losses = bradley_terry_loss(chosen, rejected, center_rewards_coefficient=self.center_rewards_coefficient)
        longer = torch.sub(*batch.num_scored_tokens.chunk(2)).float()
        return losses, torch.stack([column.detach() for column in (losses, chosen, rejected, longer)])

    @torch.no_grad()
    def columns(self, batches: Sequence[PackedBatch]) -> Columns:
        """Compute the values of all pairs of the batches over all ranks."""
        return self.ranks.compute_columns(
            batches, lambda batch: self.values(batch)[1], len(RewardColumn), runs_apart(self.model)
        )

    def figures(self, host: HostColumns) -> Figures:
        return reward_figures(host.values)

    def rewards(self, host: HostColumns) -> Rewards:
        chosen, rejected = host.values[[RewardColumn.CHOSEN_REWARD, RewardColumn.REJECTED_REWARD]]
        return Rewards(host.rows, np.asarray(chosen), np.asarray(rejected))


class RewardTask(PreferenceTask[RewardForward]):
    """One optimizer step of a reward model: gradients of the mean loss over all pairs of the step."""

    stage: TrainedStage = Stage.REWARD

    def backward(self, batches: Sequence[PackedBatch]) -> list[Columns]:
        num_pairs = sum(len(batch.indices) for batch in batches)

        def compute(turn: Turn) -> Columns:
            losses, values = self._forward.values(turn.batch)
            turn.backward(losses.sum() / num_pairs, self._forward.model)
            return turn.columns(Columns(turn.batch.indices, values))

        return self._forward.ranks.each(batches, compute, runs_apart(self._forward.model))
