"""The preference stage's step: log-probabilities of pairs, their losses, their gradients."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from core.training.encoded_data import EncodedData
from core.training.logps import pair_logps
from core.training.logps_types import PairLogps, ResponseLogps
from core.training.metrics import Columns, Figures, HostColumns, PairColumn, Rewards, pair_columns, pair_figures
from core.training.objectives import Objective
from core.training.observer import Stage
from core.training.packing import PackedBatch, pack_step
from core.training.reference import SplitLogps


@dataclass(frozen=True)
class PairForward:
    """Log-probabilities of a split's pairs under the policy, beside those of the reference."""

    model: PreTrainedModel
    data: EncodedData
    objective: Objective
    reference: SplitLogps | None
    """None when the objective needs none."""

    def pack(self, rows: Sequence[int], max_tokens: int) -> list[PackedBatch]:
        return pack_step(self.data, rows, max_tokens, self.model.device)

    def policy_logps(self, batch: PackedBatch) -> PairLogps:
        return pair_logps(
            self.model,
            batch,
            needs_token_weights=self.objective.needs_token_weights,
            needs_prefix_sums=self.objective.needs_prefix_sums,
        )

    def reference_logps(self, batch: PackedBatch) -> PairLogps | None:
        return None if self.reference is None else self.reference.of(batch)

    def columns(self, batches: Sequence[PackedBatch]) -> Columns:
        """Values of all pairs of the batches, which the objective sees together."""
        policy = concatenate_pairs([self.policy_logps(batch) for batch in batches])
        known = [part for part in (self.reference_logps(batch) for batch in batches) if part is not None]
        reference = concatenate_pairs(known) if known else None
        rows = [row for batch in batches for row in batch.indices]
        return pair_columns(rows, policy, reference, self.objective(policy, reference))

    def figures(self, host: HostColumns) -> Figures:
        return pair_figures(host.values)

    def rewards(self, host: HostColumns) -> Rewards:
        return Rewards(host.rows, host.values[PairColumn.CHOSEN_REWARD], host.values[PairColumn.REJECTED_REWARD])


class DpoTask:
    """One optimizer step of DPO with any objective: gradients of the mean loss over all pairs of the step."""

    stage: Literal[Stage.SFT, Stage.DPO] = Stage.DPO

    def __init__(self, forward: PairForward) -> None:
        self._forward = forward
        self.data = forward.data
        self.rewards = PairTable(len(forward.data))

    def pack(self, rows: Sequence[int], max_tokens: int) -> list[PackedBatch]:
        return self._forward.pack(rows, max_tokens)

    def backward(self, batches: Sequence[PackedBatch]) -> list[Columns]:
        num_pairs = sum(len(batch.indices) for batch in batches)
        if self._forward.objective.is_batch_level and len(batches) > 1:
            return self._backward_together(batches, num_pairs)
        columns = []
        for batch in batches:
            policy, reference = self._forward.policy_logps(batch), self._forward.reference_logps(batch)
            result = self._forward.objective(policy, reference)
            (result.losses.sum() / num_pairs).backward()  # type: ignore[no-untyped-call]
            columns.append(pair_columns(batch.indices, policy, reference, result))
        return columns

    def figures(self, host: HostColumns) -> Figures:
        return self._forward.figures(host)

    def record(self, host: HostColumns) -> None:
        self.rewards.record(self._forward.rewards(host))

    def state(self) -> dict[str, Tensor]:
        return self.rewards.state()

    def _backward_together(self, batches: Sequence[PackedBatch], num_pairs: int) -> list[Columns]:
        """For objectives whose losses depend on all pairs of the step, when these do not fit into one forward pass.

        A first pass without graph gives all log-probabilities; the objective on them gives the derivative by each;
        a second pass takes these derivatives through the model. The gradient is exact, for a second forward pass.
        """
        with torch.no_grad():
            parts = [self._forward.policy_logps(batch) for batch in batches]
        policy = concatenate_pairs(parts)
        leaves = [policy.chosen.sums.requires_grad_(), policy.rejected.sums.requires_grad_()]
        references = [self._forward.reference_logps(batch) for batch in batches]
        known = [part for part in references if part is not None]
        reference = concatenate_pairs(known) if known else None
        result = self._forward.objective(policy, reference)
        chosen_slopes, rejected_slopes = torch.autograd.grad(result.losses.sum() / num_pairs, leaves)
        sizes = [len(batch.indices) for batch in batches]
        for batch, of_chosen, of_rejected in zip(
            batches, torch.split(chosen_slopes, sizes), torch.split(rejected_slopes, sizes), strict=True
        ):
            again = self._forward.policy_logps(batch)
            torch.autograd.backward([again.chosen.sums, again.rejected.sums], [of_chosen, of_rejected])
        rows = [row for batch in batches for row in batch.indices]
        return [pair_columns(rows, policy, reference, result)]


class PairTable:
    """Rewards of every training pair when it was first and last taken: what became of it."""

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
        """Rewards under the final policy: the last ones, but no part of the way there."""
        rows = np.asarray(rewards.rows)
        self.last_chosen[rows], self.last_rejected[rows] = rewards.chosen, rewards.rejected

    def state(self) -> dict[str, Tensor]:
        """Sharing memory with the table."""
        return {
            "first_margins": torch.from_numpy(self.first_margins),
            "last_chosen": torch.from_numpy(self.last_chosen),
            "last_rejected": torch.from_numpy(self.last_rejected),
            "best_margins": torch.from_numpy(self.best_margins),
        }


def concatenate_pairs(parts: Sequence[PairLogps]) -> PairLogps:
    """Pairs of several micro-batches as one batch."""
    return PairLogps(_concatenate([part.chosen for part in parts]), _concatenate([part.rejected for part in parts]))


def _concatenate(parts: Sequence[ResponseLogps]) -> ResponseLogps:
    weights = [part.log_weights for part in parts if part.log_weights is not None]
    return ResponseLogps(
        sums=torch.cat([part.sums for part in parts]),
        num_tokens=torch.cat([part.num_tokens for part in parts]),
        prefix_sums=torch.cat([part.prefix_sums for part in parts]),
        log_weights=torch.cat(weights) if weights else None,
    )
