"""The LM head on scored rows only: log-probabilities of given tokens, without full-vocabulary float32 gradients.

Legend: S scored tokens, H hidden size, V vocabulary.

With z = head(h) and p = softmax(z), log p_t = z_t - logsumexp(z), and d(log p_t)/dz = onehot(t) - p. The forward pass
leaves D = p - onehot(t) in the model's dtype, so the backward pass is two products and no second softmax; without a
gradient for the head's weight (LoRA) it leaves D @ weight, [S, H], instead.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CPU_TILE_BYTES = 64 * 2**20
"""Logits of one product."""
CUDA_TILE_BYTES = 2**30
MIN_TILE_ROWS = 16
CPU_PART_BYTES = 3 * 2**20
"""float32 logits of the rows that go through the softmax together: they stay in the cache, unlike a product's."""
KEPT_BYTES = 3 * 2**30
"""D is kept for the backward pass up to this size, and computed again beyond."""


@dataclass(frozen=True, kw_only=True)
class HeadWeights:
    """Parameters that turn the last hidden state h into logits: softcap(scale * (h @ weight.T + bias))."""

    weight: Tensor
    """[V, H]"""
    bias: Tensor | None = None
    """[V]"""
    scale: float = 1.0
    softcap: float | None = None
    """z becomes softcap * tanh(z / softcap) (arXiv:2408.00118, section 2)."""


def linear_logps(
    hidden: Tensor, targets: Tensor, head: HeadWeights, *, needs_collisions: bool = False
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Compute log p(target) under the head, and on request log(sum over the vocabulary of p²).

    Args:
        hidden: [S, H] in the model's dtype.
        targets: [S] int64 token ids.

    Returns:
        [S] float32 log-probabilities, differentiable in hidden, weight and bias; [S] float32 detached or None; [S]
        bool, whether the target is the likeliest token (of equally likely ones, the first).
    """
    needs_grad = torch.is_grad_enabled() and any(
        tensor is not None and tensor.requires_grad for tensor in (hidden, head.weight, head.bias)
    )
    plan = _Plan(head.scale, head.softcap, needs_collisions, needs_grad)
    logps, collisions, hits = _LinearLogps.apply(hidden, head.weight, head.bias, targets, plan)  # type: ignore[no-untyped-call]
    return logps, (collisions if needs_collisions else None), hits


@dataclass(frozen=True)
class _Plan:
    scale: float
    softcap: float | None
    needs_collisions: bool
    needs_grad: bool


class _LinearLogps(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, plan: _Plan
    ) -> tuple[Tensor, Tensor, Tensor]:
        tiles = _Tiles(hidden, weight, bias, targets, plan)
        trains_head = plan.needs_grad and (weight.requires_grad or (bias is not None and bias.requires_grad))
        keeps = trains_head and hidden.shape[0] * weight.shape[0] * hidden.element_size() <= KEPT_BYTES
        kept = hidden.new_empty(hidden.shape[0], weight.shape[0]) if keeps else None
        direction = torch.empty_like(hidden) if plan.needs_grad and not trains_head else None
        for rows in tiles.rows():
            difference = tiles.compute(rows, None if kept is None else kept[rows])
            if direction is not None:
                torch.mm(difference, weight, out=direction[rows])
        ctx.plan = plan
        ctx.save_for_backward(hidden, weight, bias, targets, kept, direction)
        ctx.mark_non_differentiable(tiles.collisions, tiles.hits)
        return tiles.logps, tiles.collisions, tiles.hits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_logps: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets, kept, direction = ctx.saved_tensors
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        # D is p - onehot, the negative of d(log p_t)/dz.
        coefficients = -grad_logps[:, None] * ctx.plan.scale
        if direction is not None:
            return (coefficients * direction).to(hidden.dtype), None, None, None, None
        grad_hidden = torch.empty_like(hidden) if needs_hidden else None
        scaled = (coefficients * hidden).to(hidden.dtype)
        if kept is not None:
            if grad_hidden is not None:
                grad_hidden.copy_(coefficients * torch.mm(kept, weight))
            grad_weight = torch.mm(kept.t(), scaled) if needs_weight else None
            grad_bias = torch.mv(kept.t(), coefficients[:, 0].to(kept.dtype)) if needs_bias else None
            return grad_hidden, grad_weight, grad_bias, None, None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if needs_weight else None
        grad_bias = torch.zeros_like(bias, dtype=torch.float32) if needs_bias else None
        tiles = _Tiles(hidden, weight, bias, targets, ctx.plan)
        for rows in tiles.rows():
            difference = tiles.compute(rows, None)
            if grad_hidden is not None:
                grad_hidden[rows] = (coefficients[rows] * torch.mm(difference, weight)).to(hidden.dtype)
            if grad_weight is not None:
                grad_weight += torch.mm(difference.t(), scaled[rows])
            if grad_bias is not None:
                grad_bias += torch.mv(difference.t(), coefficients[rows, 0].to(difference.dtype))
        return (
            grad_hidden,
            None if grad_weight is None else grad_weight.to(weight.dtype),
            None if grad_bias is None else grad_bias.to(weight.dtype),
            None,
            None,
        )


class _Tiles:
    """Logits computed a tile of rows at a time; on a CPU, their softmax a few rows of it at a time."""

    def __init__(self, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, plan: _Plan) -> None:
        self._hidden, self._weight, self._bias, self._targets, self._plan = hidden, weight, bias, targets, plan
        self.logps = torch.empty(hidden.shape[0], dtype=torch.float32, device=hidden.device)
        self.collisions = torch.empty_like(self.logps if plan.needs_collisions else self.logps[:0])
        self.hits = torch.empty_like(self.logps, dtype=torch.bool)
        row_bytes = 4 * weight.shape[0]
        tile_bytes = CUDA_TILE_BYTES if hidden.is_cuda else CPU_TILE_BYTES
        self._tile_rows = max(MIN_TILE_ROWS, tile_bytes // row_bytes)
        self._part_rows = self._tile_rows if hidden.is_cuda else max(1, CPU_PART_BYTES // row_bytes)

    def rows(self) -> list[slice]:
        return _slices(self._hidden.shape[0], self._tile_rows)

    def compute(self, rows: slice, out: Tensor | None) -> Tensor:
        """Fill `logps[rows]` and return D of these rows, [rows, V] in the model's dtype: in `out` if given.

        Without a need for gradients, what it returns means nothing.
        """
        hidden = self._hidden[rows]
        if out is None:
            out = hidden.new_empty(hidden.shape[0], self._weight.shape[0])
        if hidden.is_cuda and hidden.dtype != torch.float32:
            products = torch.mm(hidden, self._weight.t(), out_dtype=torch.float32)
        else:
            products = torch.mm(hidden, self._weight.t(), out=out)
        for part in _slices(hidden.shape[0], self._part_rows):
            places = slice(rows.start + part.start, rows.start + part.stop)
            difference = self._finish(places, self._logits(products[part]))
            if self._plan.needs_grad:
                out[part] = difference
        return out

    def _finish(self, rows: slice, logits: Tensor) -> Tensor:
        """Turn float32 logits [rows, V] into D and fill `logps[rows]` and `hits[rows]`."""
        top, top_index = logits.max(dim=-1, keepdim=True)
        targets = self._targets[rows, None]
        target_logits = logits.gather(1, targets)
        slopes = None
        if self._plan.softcap is not None and self._plan.needs_grad:
            slopes = 1 - (logits / self._plan.softcap) ** 2
        probabilities = torch.softmax(logits, dim=-1)
        # logsumexp = top - log p(top); p(top) is at least 1/V, so this loses nothing.
        normalisers = top - probabilities.gather(1, top_index).log()
        logps = target_logits - normalisers
        self.logps[rows] = logps[:, 0]
        self.hits[rows] = (top_index == targets)[:, 0]
        if self._plan.needs_collisions:
            self.collisions[rows] = probabilities.square().sum(-1).log()
        if self._plan.needs_grad:
            probabilities.scatter_(1, targets, torch.expm1(logps))
        if slopes is not None:
            probabilities *= slopes
        return probabilities

    def _logits(self, products: Tensor) -> Tensor:
        """Return the logits of the rows, [rows, V] float32."""
        logits = products.float()
        if self._bias is not None:
            logits = logits + self._bias
        if self._plan.scale != 1.0:
            logits = logits * self._plan.scale
        if self._plan.softcap is not None:
            logits = torch.tanh(logits / self._plan.softcap) * self._plan.softcap
        return logits


def _slices(total: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, total)) for start in range(0, total, size)]
