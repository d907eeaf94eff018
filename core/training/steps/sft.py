"""Supervised fine-tuning: the mean negative log-likelihood per response token, over all tokens of the optimizer step.

Every scored token of a step weighs the same, whatever micro-batch or row it is in, as in transformers' Trainer and
TRL. (The DPO authors' code takes the mean over rows of sums instead, which gives long responses the same weight a
token but makes the loss grow with length.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from core.domain.training import metric_names as names
from core.training.data.columns import Columns, HostColumns
from core.training.data.encoded import EncodedData
from core.training.data.packing import PackedBatch, pack_side
from core.training.data.texts import Side
from core.training.model.joint_use import runs_apart
from core.training.model.logps import reduce_responses, response_hits, token_logps
from core.training.observer import Stage, TrainedStage
from core.training.ranks import ALONE, Ranks, Turn
from core.training.steps.figures import Figures, finite


class SftColumn(IntEnum):
    """Names of the values kept of every row."""

    LOSS = 0
    """Summed over its scored tokens."""
    NUM_TOKENS = 1
    HITS = 2
    """Scored tokens that were the likeliest ones."""


def sft_figures(values: NDArray[np.float64]) -> Figures:
    """Average over all scored tokens, by the names of `core.domain.training.metric_names`.

    Args:
        values: [C, B] in the order of `SftColumn`, B at least 1.
    """
    num_tokens = values[SftColumn.NUM_TOKENS].sum()
    return finite(
        {
            names.LOSS: values[SftColumn.LOSS].sum() / num_tokens,
            names.MEAN_TOKEN_ACCURACY: values[SftColumn.HITS].sum() / num_tokens,
        }
    )


@dataclass(frozen=True)
class SftForward:
    """Forward pass over a split's responses: the only ones, or the chosen ones of pairs."""

    model: PreTrainedModel
    data: EncodedData
    ranks: Ranks = ALONE

    @property
    def side(self) -> Side:
        return "chosen" if self.data.kind == "preference" else "only"

    def pack(self, rows: Sequence[int], max_tokens: int) -> list[PackedBatch]:
        return pack_side(self.data, rows, max_tokens, self.model.device, self.side, self.ranks.size)

    def values(self, batch: PackedBatch) -> tuple[Tensor, Tensor]:
        """Return each row's log-probability, [B] with a graph, and the values of `SftColumn`, [C, B]."""
        tokens = token_logps(self.model, batch)
        logps = reduce_responses(tokens, batch)
        columns = (-logps.sums.detach(), logps.num_tokens.float(), response_hits(tokens, batch))
        return logps.sums, torch.stack(columns)

    @torch.no_grad()
    def columns(self, batches: Sequence[PackedBatch]) -> Columns:
        """Compute the values of all rows of the batches over all ranks."""
        return self.ranks.compute_columns(
            batches, lambda batch: self.values(batch)[1], len(SftColumn), runs_apart(self.model)
        )

    def figures(self, host: HostColumns) -> Figures:
        return sft_figures(host.values)


class SftTask:
    """One optimizer step of SFT."""

    stage: TrainedStage = Stage.SFT

    def __init__(self, model: PreTrainedModel, data: EncodedData, ranks: Ranks = ALONE) -> None:
        self._forward = SftForward(model, data, ranks)
        self.data = data

    def pack(self, rows: Sequence[int], max_tokens: int) -> list[PackedBatch]:
        return self._forward.pack(rows, max_tokens)

    def backward(self, batches: Sequence[PackedBatch]) -> list[Columns]:
        """Accumulate gradients; columns are those of `SftColumn`."""
        num_scored = sum(batch.num_scored for batch in batches)

        def compute(turn: Turn) -> Columns:
            sums, values = self._forward.values(turn.batch)
            turn.backward(-sums.sum() / num_scored, self._forward.model)
            return turn.columns(Columns(turn.batch.indices, values))

        return self._forward.ranks.each(batches, compute, runs_apart(self._forward.model))

    def figures(self, host: HostColumns) -> Figures:
        return self._forward.figures(host)

    def weight(self, host: HostColumns) -> float:
        """Return the scored tokens: a figure of a step is a mean over them."""
        return float(host.values[SftColumn.NUM_TOKENS].sum())

    def record(self, host: HostColumns) -> None:
        """Do nothing, as no values of single rows are kept."""

    def state(self) -> dict[str, Tensor]:
        return {}
