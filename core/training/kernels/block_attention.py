"""Attention over packed rows by blocks of queries: the path for CPUs, and for what a CUDA kernel cannot do.

A block takes some queries and just those keys that any of them sees, so the upper triangle and masked squares cost
little, and what is formed at a time stays in the cache. Scores and softmax are float32 whatever the model's dtype.
Short blocks keep their probabilities for the backward pass; long ones compute them again, so that memory stays linear
in T (the tiling of arXiv:2205.14135, without its online softmax: a block sees all its keys at once).

torch's own kernel gives the same numbers; its backward pass on a CPU takes two to three times as long on the short
sequences of preference data (`docs/evidence/performance.md`).

Legend: T packed tokens, N query heads, K key/value heads, G = N / K, D head size, n queries and m keys of a block.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from core.training.kernels.attention_plan import Block, BlockPlan, BlockRows


@dataclass(frozen=True, kw_only=True)
class ScoreOptions:
    """Options that decide how scores are computed from query and key."""

    scaling: float | None = None
    """None: D ** -0.5."""
    sliding_window: int | None = None
    """Each query sees this many keys at most, its own included."""
    softcap: float | None = None
    """Scores become softcap * tanh(score / softcap)."""


def block_attention(query: Tensor, key: Tensor, value: Tensor, plan: BlockPlan, options: ScoreOptions) -> Tensor:
    """Attention of queries [T, N, D] over keys and values [T, K, D] (values may differ in size), differentiable."""
    output: Tensor = _BlockAttention.apply(query, key, value, plan, options)  # type: ignore[no-untyped-call]
    return output


class _BlockAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, plan: BlockPlan, options: ScoreOptions) -> Tensor:
        rows = plan.rows(query.shape[1], key.shape[1], query.device)
        scores = _Scores(query, key, rows, options)
        values = rows.split_keys(rows.gather_keys(value))
        attended = query.new_empty(query.shape[0] * query.shape[1], value.shape[2])
        outputs = rows.split_queries(attended)
        kept = []
        for index, block in enumerate(plan.blocks):
            probabilities = scores.probabilities(index, block).to(value.dtype)
            torch.bmm(probabilities, values[index], out=outputs[index])
            if any(ctx.needs_input_grad) and scores.keeps(block):
                kept.append(probabilities)
        output = rows.return_queries(attended)
        ctx.plan, ctx.options = plan, options
        ctx.save_for_backward(query, key, value, output, *kept)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, output, *saved = ctx.saved_tensors
        rows = ctx.plan.rows(query.shape[1], key.shape[1], query.device)
        scores, kept = _Scores(query, key, rows, ctx.options), iter(saved)
        queries, keys = rows.gather_queries(query), rows.gather_keys(key)
        grads, values = _with_shares(grad_output, output, value, rows)
        grad_query, grad_key, grad_value = (torch.empty_like(tensor) for tensor in (queries, keys, values))
        by_query = [rows.split_queries(tensor) for tensor in (queries, grads, grad_query)]
        by_key = [rows.split_keys(tensor) for tensor in (keys, values, grad_key, grad_value)]
        for index, block in enumerate(ctx.plan.blocks):
            (own_query, grad, into_query), (own_key, own_value, into_key, into_value) = (
                [parts[index] for parts in tensors] for tensors in (by_query, by_key)
            )
            probabilities = next(kept) if scores.keeps(block) else scores.probabilities(index, block).to(query.dtype)
            slopes = torch.bmm(grad, own_value.transpose(1, 2))
            slopes *= probabilities
            if (cap_slopes := scores.cap_slopes(index, block)) is not None:
                slopes *= cap_slopes
            torch.bmm(slopes, own_key, out=into_query)
            torch.bmm(slopes.transpose(1, 2), own_query, out=into_key)
            torch.bmm(probabilities.transpose(1, 2), grad, out=into_value)
        return (
            rows.return_queries(grad_query).mul_(scores.scaling),
            rows.add_up_keys(grad_key).mul_(scores.scaling),
            rows.add_up_keys(grad_value)[..., : value.shape[2]],
            None,
            None,
        )


def _with_shares(grad_output: Tensor, output: Tensor, value: Tensor, rows: BlockRows) -> tuple[Tensor, Tensor]:
    """Return gradients [R, D + 2] and values [M, D + 2] whose products are dp - sum over keys of p * dp.

    The sum equals that of gradient times output over D. It is taken off inside the product, before its result is
    rounded to the model's dtype: as two columns, the sum rounded to that dtype, and what the rounding took.
    """
    dtype = torch.promote_types(value.dtype, torch.float32)
    share = (grad_output * output).sum(-1, keepdim=True, dtype=dtype)
    rounded = share.to(value.dtype)
    rest = (share - rounded).to(value.dtype)
    grads = torch.cat((grad_output, -rounded, -rest), dim=-1)
    values = torch.cat((value, value.new_ones(*value.shape[:2], 2)), dim=-1)
    return rows.gather_queries(grads), rows.gather_keys(values)


class _Scores:
    """Attention scores of one layer, computed a block at a time, at least in float32."""

    def __init__(self, query: Tensor, key: Tensor, rows: BlockRows, options: ScoreOptions) -> None:
        self.dtype = torch.promote_types(query.dtype, torch.float32)
        self.scaling = options.scaling if options.scaling is not None else query.shape[-1] ** -0.5
        self._options = options
        self._query, self._key, self._rows = query, key, rows
        self._operands: tuple[list[Tensor], list[Tensor]] | None = None

    def keeps(self, block: Block) -> bool:
        """Whether the forward pass keeps the block's probabilities for the backward pass."""
        return block.is_small and self._options.softcap is None

    def probabilities(self, index: int, block: Block) -> Tensor:
        """Return the block's attention probabilities, [K, G n, m]."""
        scores = self._scores(index)
        if self._options.softcap is not None:
            scores = torch.tanh(scores / self._options.softcap) * self._options.softcap
        by_query = scores.view(len(scores), -1, block.num_queries, block.num_keys)
        bias = block.bias(self._options.sliding_window, scores.device)
        by_query[..., -bias.shape[1] :] += bias
        return torch.softmax(scores, dim=-1)

    def cap_slopes(self, index: int, block: Block) -> Tensor | None:
        """Return the derivative of the soft cap, 1 - tanh², [K, G n, m]; None without a cap."""
        softcap = self._options.softcap
        return None if softcap is None else 1 - torch.tanh(self._scores(index) / softcap).square()

    def _scores(self, index: int) -> Tensor:
        if self._operands is None:
            query = self._rows.gather_queries(self._query).to(self.dtype).mul_(self.scaling)
            key = self._rows.gather_keys(self._key).to(self.dtype)
            self._operands = self._rows.split_queries(query), self._rows.split_keys(key)
        queries, keys = self._operands
        return torch.bmm(queries[index], keys[index].transpose(1, 2))
