"""Supervised fine-tuning: the mean negative log-likelihood per response token, over all tokens of the optimizer step.

Every scored token of a step weighs the same, whatever micro-batch or row it is in, as in transformers' Trainer and
TRL. (The DPO authors' code takes the mean over rows of sums instead, which gives long responses the same weight a
token but makes the loss grow with length.)
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from core.domain import metric_names as names
from core.training.data.columns import Columns, HostColumns
from core.training.data.encoded import EncodedData
from core.training.data.packing import PackedBatch, Side, pack_responses, split_micro_batches, spread
from core.training.model.logps import response_logps
from core.training.observer import Stage
from core.training.ranks import ALONE, Ranks
from core.training.steps.figures import Figures, finite


class SftTask:
    """One optimizer step of SFT."""

    stage: Literal[Stage.SFT, Stage.DPO] = Stage.SFT

    def __init__(self, model: PreTrainedModel, data: EncodedData, ranks: Ranks = ALONE) -> None:
        self._model = model
        self._ranks = ranks
        self.data = data
        self._side: Side = "chosen" if data.kind == "preference" else "only"

    def pack(self, rows: Sequence[int], max_tokens: int) -> list[PackedBatch]:
        micro_batches = split_micro_batches(self.data, rows, max_tokens, side=self._side)
        micro_batches = spread(micro_batches, self._ranks.size)
        return [
            pack_responses(self.data, micro_batch, self._model.device, side=self._side) for micro_batch in micro_batches
        ]

    def backward(self, batches: Sequence[PackedBatch]) -> list[Columns]:
        """Accumulate gradients; columns are a row's loss summed over its tokens, and its number of tokens."""
        num_scored = sum(batch.num_scored for batch in batches)
        columns = []
        for turn in self._ranks.turns(batches):
            logps = response_logps(self._model, turn.batch)
            turn.backward(-logps.sums.sum() / num_scored)
            values = torch.stack((-logps.sums.detach(), logps.num_tokens.float()))
            columns.append(turn.columns(Columns(turn.batch.indices, values)))
        return columns

    def figures(self, host: HostColumns) -> Figures:
        losses, counts = host.values
        return finite({names.LOSS: losses.sum() / counts.sum()})

    def record(self, host: HostColumns) -> None:
        """Do nothing, as no values of single rows are kept."""

    def state(self) -> dict[str, Tensor]:
        return {}
