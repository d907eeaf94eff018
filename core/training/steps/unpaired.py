"""One step of the preference stage on single responses marked good or bad (KTO, arXiv:2402.01306).

The loss of a row needs z, how far the policy has moved from the reference, estimated from responses under prompts they
do not belong to. Every row has a partner for that, drawn once from the seed: the reference's half is then computed
once, as for pairs, and serves all epochs. z is that of the whole optimizer step, however it is cut into micro-batches.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from core.training.data.columns import Columns, HostColumns, Rewards
from core.training.data.encoded import EncodedData
from core.training.data.packing import PackedBatch, pack_step
from core.training.losses.objective import UnpairedObjective
from core.training.losses.values import UnpairedLosses
from core.training.model.joint_use import runs_apart
from core.training.model.logps import response_logps
from core.training.ranks import ALONE, Ranks, Turn
from core.training.steps.figures import Figures, UnpairedColumn, unpaired_figures
from core.training.steps.reference_logps import SplitLogps
from core.training.steps.task import PreferenceTask


@dataclass(frozen=True)
class UnpairedForward:
    """Forward pass over a split's responses: the policy's log-probabilities beside those of the reference."""

    model: PreTrainedModel
    data: EncodedData
    """Rows with partners."""
    objective: UnpairedObjective
    reference: SplitLogps
    ranks: Ranks = ALONE

    def pack(self, rows: Sequence[int], max_tokens: int) -> list[PackedBatch]:
        """Pack the rows' own responses, then their partners'."""
        return pack_step(self.data, rows, max_tokens, self.model.device, self.ranks.size)

    @torch.no_grad()
    def kl(self, batches: Sequence[PackedBatch]) -> Tensor:
        """Return the scalar z from the partners' responses among the batches."""
        others = [batch for batch in batches if batch.side == "rejected"]
        sums = self.ranks.compute(
            others,
            lambda batch: response_logps(self.model, batch).sums,
            lambda batch: len(batch.indices),
            runs_apart(self.model),
        )
        return self.objective.kl(torch.cat(sums), torch.cat([self.reference.of_responses(batch) for batch in others]))

    def losses(self, batch: PackedBatch, kl: Tensor) -> tuple[UnpairedLosses, Columns]:
        """Compute losses of the rows' own responses, with a graph if gradients are enabled."""
        labels = torch.from_numpy(self.data.labels[list(batch.indices)] == 1).to(kl.device)
        sums = response_logps(self.model, batch).sums
        result = self.objective(sums, self.reference.of_responses(batch), labels, kl)
        values = (result.losses.detach(), result.rewards, sums.detach(), labels, kl.expand(len(labels)))
        return result, Columns(batch.indices, torch.stack([column.float() for column in values]))

    @torch.no_grad()
    def columns(self, batches: Sequence[PackedBatch]) -> Columns:
        """Compute the values of all rows of the batches, which share their estimate of z."""
        kl = self.kl(batches)
        own = own_responses(batches)
        order = [row for batch in own for row in batch.indices]
        mine = self.ranks.each(own, lambda turn: turn.columns(self.losses(turn.batch, kl)[1]), runs_apart(self.model))
        parts = self.ranks.join_columns(mine, order)
        return Columns(tuple(order), torch.cat([part.values for part in parts], dim=1))

    def figures(self, host: HostColumns) -> Figures:
        return unpaired_figures(host.values)

    def rewards(self, host: HostColumns) -> Rewards:
        is_good, rewards = host.values[UnpairedColumn.IS_GOOD] > 0, host.values[UnpairedColumn.REWARD]
        return Rewards(host.rows, np.where(is_good, rewards, 0.0), np.where(is_good, 0.0, rewards))


class UnpairedTask(PreferenceTask[UnpairedForward]):
    """One optimizer step on unpaired rows: gradients of the mean loss over all rows of the step."""

    def backward(self, batches: Sequence[PackedBatch]) -> list[Columns]:
        kl = self._forward.kl(batches)
        own = own_responses(batches)
        num_rows = sum(len(batch.indices) for batch in own)

        def compute(turn: Turn) -> Columns:
            result, columns = self._forward.losses(turn.batch, kl)
            turn.backward(result.losses.sum() / num_rows, self._forward.model)
            return turn.columns(columns)

        return self._forward.ranks.each(own, compute, runs_apart(self._forward.model))


def own_responses(batches: Sequence[PackedBatch]) -> list[PackedBatch]:
    return [batch for batch in batches if batch.side == "chosen"]
