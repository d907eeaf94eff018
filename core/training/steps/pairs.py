"""One step of the preference stage on pairs: log-probabilities, losses, gradients."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from core.training.data.columns import Columns, HostColumns, Rewards
from core.training.data.encoded import EncodedData
from core.training.data.packing import PackedBatch, pack_step
from core.training.losses.objective import Objective
from core.training.losses.values import PairLogps, ResponseLogps
from core.training.model.joint_use import runs_apart
from core.training.model.logps import TokenLogps, reduce_pairs, token_logps
from core.training.ranks import ALONE, Ranks, Turn
from core.training.steps.figures import Figures, PairColumn, pair_columns, pair_figures
from core.training.steps.reference_logps import SplitLogps
from core.training.steps.task import PreferenceTask


@dataclass(frozen=True)
class PairForward:
    """Forward pass over a split's pairs: the policy's log-probabilities beside those of the reference."""

    model: PreTrainedModel
    data: EncodedData
    objective: Objective
    reference: SplitLogps | None
    """None when the objective needs none."""
    ranks: Ranks = ALONE

    def pack(self, rows: Sequence[int], max_tokens: int) -> list[PackedBatch]:
        return pack_step(self.data, rows, max_tokens, self.model.device, self.ranks.size)

    def policy_logps(self, batch: PackedBatch) -> PairLogps:
        tokens = token_logps(self.model, batch, needs_token_weights=self.objective.needs_token_weights)
        return self.reduce(tokens, batch)

    def reduce(self, tokens: TokenLogps, batch: PackedBatch) -> PairLogps:
        """Return log-probabilities of single tokens in the form that the objective takes."""
        logps = reduce_pairs(tokens, batch, needs_prefix_sums=self.objective.needs_prefix_sums)
        return replace(logps, lists=_lists([batch])) if self.objective.compares_lists else logps

    def sees_other_batches(self, batches: Sequence[PackedBatch]) -> bool:
        """Whether the losses of one of these micro-batches depend on another of them."""
        if self.objective.is_batch_level:
            return len(batches) > 1
        lists = [number for batch in batches for number in {*batch.lists}]
        return self.objective.compares_lists and len({*lists}) < len(lists)

    @torch.no_grad()
    def all_policy_logps(self, batches: Sequence[PackedBatch]) -> PairLogps:
        """Compute log-probabilities of all pairs of the batches over all ranks, without a graph."""
        tables = self.ranks.compute(
            batches,
            lambda batch: torch.cat(_tensors(self.policy_logps(batch))),
            lambda batch: len(batch.indices) * (6 if self.objective.needs_token_weights else 4),
            runs_apart(self.model),
        )
        pairs = concatenate_pairs([_of_table(table, batch) for table, batch in zip(tables, batches, strict=True)])
        return replace(pairs, lists=_lists(batches)) if self.objective.compares_lists else pairs

    def reference_logps(self, batch: PackedBatch) -> PairLogps | None:
        return None if self.reference is None else self.reference.of(batch)

    def columns(self, batches: Sequence[PackedBatch]) -> Columns:
        """Compute the values of all pairs of the batches, which the objective sees together."""
        policy = self.all_policy_logps(batches)
        known = [part for part in (self.reference_logps(batch) for batch in batches) if part is not None]
        reference = concatenate_pairs(known) if known else None
        rows = [row for batch in batches for row in batch.indices]
        return pair_columns(rows, policy, reference, self.objective(policy, reference))

    def figures(self, host: HostColumns) -> Figures:
        return pair_figures(host.values)

    def rewards(self, host: HostColumns) -> Rewards:
        return Rewards(host.rows, host.values[PairColumn.CHOSEN_REWARD], host.values[PairColumn.REJECTED_REWARD])


class UnmovedForward(PairForward):
    """Forward pass of a policy that is still the reference: its log-probabilities are those, not computed again."""

    @classmethod
    def of(cls, forward: PairForward) -> PairForward:
        """Return the pass for such a policy; the same one where the objective needs what the reference lacks."""
        if forward.reference is None or forward.objective.needs_token_weights:
            return forward
        return cls(forward.model, forward.data, forward.objective, forward.reference, forward.ranks)

    def all_policy_logps(self, batches: Sequence[PackedBatch]) -> PairLogps:
        assert self.reference is not None
        pairs = concatenate_pairs([self.reference.of(batch) for batch in batches])
        return replace(pairs, lists=_lists(batches)) if self.objective.compares_lists else pairs


class DpoTask(PreferenceTask[PairForward]):
    """One optimizer step of DPO with any objective: gradients of the mean loss over all pairs of the step."""

    def backward(self, batches: Sequence[PackedBatch]) -> list[Columns]:
        num_pairs = sum(len(batch.indices) for batch in batches)
        if self._forward.sees_other_batches(batches):
            return self._backward_together(batches, num_pairs)

        def compute(turn: Turn) -> Columns:
            policy, reference = self._forward.policy_logps(turn.batch), self._forward.reference_logps(turn.batch)
            result = self._forward.objective(policy, reference)
            turn.backward(result.losses.sum() / num_pairs, self._forward.model)
            return turn.columns(pair_columns(turn.batch.indices, policy, reference, result))

        return self._forward.ranks.each(batches, compute, runs_apart(self._forward.model))

    def _backward_together(self, batches: Sequence[PackedBatch], num_pairs: int) -> list[Columns]:
        """Accumulate gradients for losses that depend on all pairs of a step too large for one forward pass.

        A first pass without graph gives all log-probabilities; the objective on them gives the derivative by each;
        a second pass takes these derivatives through the model. The gradient is exact, for a second forward pass.
        """
        policy = self._forward.all_policy_logps(batches)
        leaves = [policy.chosen.sums.requires_grad_(), policy.rejected.sums.requires_grad_()]
        references = [self._forward.reference_logps(batch) for batch in batches]
        known = [part for part in references if part is not None]
        reference = concatenate_pairs(known) if known else None
        result = self._forward.objective(policy, reference)
        chosen_slopes, rejected_slopes = torch.autograd.grad(result.losses.sum() / num_pairs, leaves)
        rows = [row for batch in batches for row in batch.indices]
        place = {row: number for number, row in enumerate(rows)}

        def compute(turn: Turn) -> None:
            again = self._forward.policy_logps(turn.batch)
            places = [place[row] for row in turn.batch.indices]
            slopes = [part[places] * float(turn.counts) for part in (chosen_slopes, rejected_slopes)]
            torch.autograd.backward([again.chosen.sums, again.rejected.sums], slopes)

        self._forward.ranks.each(batches, compute, runs_apart(self._forward.model))
        whole = Turn(batches[0], counts=self._forward.ranks.is_leader)  # every rank knows all; one tells
        return [whole.columns(pair_columns(rows, policy, reference, result))]


def concatenate_pairs(parts: Sequence[PairLogps]) -> PairLogps:
    """Concatenate pairs of several micro-batches to one batch."""
    return PairLogps(_concatenate([part.chosen for part in parts]), _concatenate([part.rejected for part in parts]))


def _lists(batches: Sequence[PackedBatch]) -> Tensor:
    """Return the numbers of the lists of all pairs of the batches, on their device."""
    numbers = torch.tensor([number for batch in batches for number in batch.lists])
    return numbers.to(batches[0].input_ids.device)


def _tensors(pairs: PairLogps) -> list[Tensor]:
    """Return the float32 tensors, [B] each: an even number of them, chosen and rejected in turn."""
    columns = [(side.sums, side.prefix_sums, side.log_weights) for side in (pairs.chosen, pairs.rejected)]
    return [tensor for both in zip(*columns, strict=True) for tensor in both if tensor is not None]


def _of_table(table: Tensor, batch: PackedBatch) -> PairLogps:
    """Rebuild pairs from `_tensors` as one tensor."""
    tensors = table.view(-1, len(batch.indices)).unbind()
    sides = []
    for side, counts in enumerate(batch.num_scored_tokens.chunk(2)):
        sums, prefix_sums, *weights = tensors[side::2]
        sides.append(ResponseLogps(sums, counts, prefix_sums, weights[0] if weights else None))
    chosen, rejected = sides
    return PairLogps(chosen, rejected)


def _concatenate(parts: Sequence[ResponseLogps]) -> ResponseLogps:
    weights = [part.log_weights for part in parts if part.log_weights is not None]
    return ResponseLogps(
        sums=torch.cat([part.sums for part in parts]),
        num_tokens=torch.cat([part.num_tokens for part in parts]),
        prefix_sums=torch.cat([part.prefix_sums for part in parts]),
        log_weights=torch.cat(weights) if weights else None,
    )
