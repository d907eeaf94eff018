"""Computation of the reference's log-probabilities, a group of rows at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from core.training.checkpoints.files import copy_exactly
from core.training.data.encoded import EncodedData
from core.training.data.order import DataOrder
from core.training.data.packing import PackedBatch, pack_step
from core.training.data.texts import SIDES
from core.training.data.token_budget import TokenBudget
from core.training.failures import BadCheckpoint
from core.training.model.joint_use import runs_apart
from core.training.model.logps import reduce_pairs, reduce_responses, token_logps
from core.training.ranks import ALONE, Ranks
from core.training.steps.reference_logps import TRAIN, VALIDATION, ReferenceLogps, SplitLogps


@dataclass
class _SplitTokens:
    """Log-probabilities of single tokens, in the order in which they were computed."""

    starts: NDArray[np.int64]
    """[N, 2] where a response's tokens start, -1 while unknown."""
    counts: NDArray[np.int64]
    """[N, 2] scored tokens."""
    parts: list[NDArray[np.float32]]
    length: int = 0

    @classmethod
    def unknown(cls, num_rows: int) -> "_SplitTokens":
        return cls(np.full((num_rows, 2), -1, np.int64), np.zeros((num_rows, 2), np.int64), [])

    def add(self, batch: PackedBatch, values: NDArray[np.float32]) -> None:
        counts = np.asarray(batch.scored_counts, np.int64)
        starts = self.length + np.cumsum(counts) - counts
        cells = _cells(batch)
        self.starts[cells] = starts.reshape(-1, len(batch.indices)).T
        self.counts[cells] = counts.reshape(-1, len(batch.indices)).T
        self.parts.append(values)
        self.length += len(values)

    def joined(self) -> NDArray[np.float32]:
        """Return all tokens' log-probabilities as one tensor, [S]."""
        self.parts = [np.concatenate(self.parts) if self.parts else np.zeros(0, np.float32)]
        return self.parts[0]


class ReferencePass:
    """Pass over the rows in groups: the steps of DPO's first epoch, then the validation rows, each in their order."""

    def __init__(
        self,
        model: PreTrainedModel,
        order: DataOrder,
        data: Mapping[str, EncodedData],
        budget: TokenBudget,
        logps: ReferenceLogps,
        *,
        ranks: Ranks = ALONE,
        validation_groups: Sequence[list[int]] = (),
    ) -> None:
        """Take `data` by split: `TRAIN`, and `VALIDATION` if there is one, whose rows are evaluated in these groups."""
        self._model = model
        self._order = order
        self._data = data
        self._budget = budget
        self._ranks = ranks
        self._max_tokens = budget.tokens
        self._tokens = {name: _SplitTokens.unknown(len(data)) for name, data in self._data.items()}
        self._validation_groups = validation_groups
        self.logps = logps
        """Filled in as groups are done."""
        self.groups_done = 0

    @property
    def num_groups(self) -> int:
        return self._order.steps_in(0) + len(self._validation_groups)

    @torch.no_grad()
    def run_group(self) -> int:
        """Compute the next group; return the number of tokens it took.

        A group that fails leaves nothing behind, so it can be run again. With a smaller budget than before the pass
        starts over: all groups must be cut into micro-batches as DPO's first epoch will be.
        """
        if self._budget.tokens != self._max_tokens:
            self._max_tokens = self._budget.tokens
            self._tokens = {name: _SplitTokens.unknown(len(data)) for name, data in self._data.items()}
            self.groups_done = 0
        name, rows = self._group(self.groups_done)
        batches = pack_step(self._data[name], rows, self._max_tokens, self._model.device, self._ranks.size)
        computed = self._ranks.compute(
            batches, self._compute, lambda batch: batch.num_scored + 2 * batch.num_responses, runs_apart(self._model)
        )
        for batch, found in zip(batches, computed, strict=True):
            self._keep(name, batch, found)
        self.groups_done += 1
        return sum(batch.num_tokens for batch in batches)

    def tensors(self) -> dict[str, Tensor]:
        """Return the sums so far, and `<split>.token_logps` [S] with `starts` and `counts` [N, 2] into it."""
        found = self.logps.tensors()
        for name, tokens in self._tokens.items():
            found[f"{name}.starts"] = torch.from_numpy(tokens.starts)
            found[f"{name}.counts"] = torch.from_numpy(tokens.counts)
            found[f"{name}.token_logps"] = torch.from_numpy(tokens.joined())
        return found

    def restore(self, groups_done: int, tensors: dict[str, Tensor]) -> None:
        """Restore what `tensors` returned after that many groups.

        Raises:
            BadCheckpoint: they are not of this pass.
        """
        rest = dict(tensors)
        for name, tokens in self._tokens.items():
            values = rest.pop(f"{name}.token_logps", None)
            if values is None:
                raise BadCheckpoint("The checkpoint lacks the reference's log-probabilities.")
            tokens.parts, tokens.length = [values.numpy()], len(values)
        targets = {name: tensor for name, tensor in self.tensors().items() if not name.endswith(".token_logps")}
        copy_exactly(targets, rest, "reference")
        self.groups_done = groups_done

    def _group(self, index: int) -> tuple[str, list[int]]:
        num_train_groups = self._order.steps_in(0)
        if index < num_train_groups:
            return TRAIN, self._order.rows_at(self._order.cursor_of(index))
        return VALIDATION, self._validation_groups[index - num_train_groups]

    def _compute(self, batch: PackedBatch) -> Tensor:
        """Return token log-probabilities [S], then sums and prefix sums of all responses."""
        tokens = token_logps(self._model, batch)
        if not batch.is_pairs:
            sums = reduce_responses(tokens, batch).sums
            return torch.cat((tokens.values, sums, sums))
        pairs = reduce_pairs(tokens, batch, needs_prefix_sums=True)
        sides = (pairs.chosen, pairs.rejected)
        return torch.cat((tokens.values, *(side.sums for side in sides), *(side.prefix_sums for side in sides)))

    def _keep(self, name: str, batch: PackedBatch, computed: Tensor) -> None:
        found = computed.cpu().numpy()
        values, tables = found[: batch.num_scored], found[batch.num_scored :]
        sums, prefix_sums = tables.reshape(2, -1, len(batch.indices)).transpose(0, 2, 1)
        split: SplitLogps | None = self.logps.train if name == TRAIN else self.logps.validation
        assert split is not None
        cells = _cells(batch)
        split.sums[cells], split.prefix_sums[cells] = sums, prefix_sums
        self._tokens[name].add(batch, values)


def _cells(batch: PackedBatch) -> tuple[NDArray[np.integer], ...]:
    """Return where the batch's responses are in tables [N, 2]."""
    columns = [0, 1] if batch.side is None else [SIDES.index(batch.side)]
    return np.ix_(batch.indices, columns)
