"""Attention over packed rows: which token sees which, and the function models call for it.

A micro-batch is one long row of T tokens without padding, cut into segments. A token sees the tokens before it in its
own segment, itself, and the segment's prefix: the prompt, where a rejected response shares the chosen one's.

Legend: T packed tokens, N query heads, K key/value heads, D head size.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional
from transformers import AttentionInterface

from core.training.varlen import VarlenPlan, can_use_varlen, varlen_attention

PACKED_ATTENTION = "preftune_packed"
"""Name under which `packed_attention` is registered with transformers."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Tokens [start, end) of the packed row; they also see the tokens [prefix_start, prefix_end) before them."""

    start: int
    end: int
    prefix_start: int = 0
    prefix_end: int = 0

    @property
    def length(self) -> int:
        return self.end - self.start

    @property
    def prefix_length(self) -> int:
        return self.prefix_end - self.prefix_start


@dataclass(frozen=True, kw_only=True)
class AttentionLayout:
    """The segments of a packed row, in order and without gaps."""

    segments: tuple[Segment, ...]
    varlen: VarlenPlan | None = None
    """The same for the CUDA kernel; None on other devices."""
    recomputes: bool = False
    """Attention is computed again in the backward pass, and keeps nothing: under activation checkpointing."""

    @property
    def num_tokens(self) -> int:
        return self.segments[-1].end


@dataclass(frozen=True, kw_only=True)
class ScoreOptions:
    """How scores are formed from query and key."""

    scaling: float | None = None
    """None: D ** -0.5."""
    sliding_window: int | None = None
    """Each query sees this many keys at most, its own included."""
    softcap: float | None = None
    """Scores become softcap * tanh(score / softcap)."""


class LayoutNotDelivered(RuntimeError):
    """Attention was called in a way that packed rows do not allow: this model cannot be packed."""


def segment_mask(segment: Segment, sliding_window: int | None, device: torch.device) -> Tensor:
    """[length, prefix_length + length] bool: True where a query of the segment sees a key of prefix and segment."""
    keys = torch.arange(segment.prefix_length + segment.length, device=device)
    queries = torch.arange(segment.length, device=device)[:, None] + segment.prefix_length
    mask = keys <= queries
    if sliding_window is not None:
        mask &= keys > queries - sliding_window
    return mask


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    packed_layout: AttentionLayout | None = None,
    **kwargs: object,
) -> tuple[Tensor, None]:
    """The attention function registered with transformers.

    Args:
        query: [1, N, T, D]; `key` and `value`: [1, K, T, D].
        packed_layout: passed to the model's forward by `core.training.forward`.

    Returns:
        [1, T, N, D] and no weights.

    Raises:
        LayoutNotDelivered: without a layout, with a dense mask, dropout, a position bias or attention sinks, which
            are not computed here.
    """
    if packed_layout is None or attention_mask is not None or dropout:
        raise LayoutNotDelivered(type(module).__name__)
    if any(kwargs.get(name) is not None for name in ("s_aux", "position_bias", "cache")):
        raise LayoutNotDelivered(type(module).__name__)
    options = ScoreOptions(scaling=scaling, sliding_window=sliding_window, softcap=softcap)
    query, key, value = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    if packed_layout.varlen is not None and can_use_varlen(query, value, softcap):
        output = varlen_attention(query, key, value, packed_layout.varlen, scaling, sliding_window)
    else:
        output = _SegmentAttention.apply(query, key, value, packed_layout, options)  # type: ignore[no-untyped-call]
    return output[None], None


class _SegmentAttention(torch.autograd.Function):
    """One small attention per segment.

    Left to autograd, every slice of query, key and value would be given a gradient as long as the whole row, and all of
    them would be added up: quadratic in the number of segments. Here each segment keeps its own graph, and its
    gradients are written where they belong.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, layout: AttentionLayout, options: ScoreOptions
    ) -> Tensor:
        """[T, N, D] and [T, K, D] twice to [T, N, D]."""
        keeps_graphs = any(ctx.needs_input_grad) and not layout.recomputes
        output = query.new_empty(query.shape[0], query.shape[1], value.shape[2])
        graphs = []
        for segment in layout.segments:
            graph = _SegmentGraph.compute(query, key, value, segment, options, keeps_graphs)
            output[segment.start : segment.end] = graph.attended.detach()
            if keeps_graphs:
                graphs.append(graph)
        ctx.graphs, ctx.layout, ctx.options = graphs, layout, options
        ctx.save_for_backward(query, key, value)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value = ctx.saved_tensors
        grad_query, grad_key, grad_value = (torch.empty_like(tensor) for tensor in (query, key, value))
        graphs = iter(ctx.graphs)
        for segment in ctx.layout.segments:
            own = slice(segment.start, segment.end)
            graph = next(graphs, None) or _SegmentGraph.compute(query, key, value, segment, ctx.options, True)
            d_query, d_key, d_value = torch.autograd.grad(graph.attended, graph.inputs, grad_output[own])
            grad_query[own] = d_query
            grad_key[own] = d_key[segment.prefix_length :]
            grad_value[own] = d_value[segment.prefix_length :]
            if segment.prefix_length:  # a prefix stands before its users, so its own gradient is there already
                grad_key[segment.prefix_start : segment.prefix_end] += d_key[: segment.prefix_length]
                grad_value[segment.prefix_start : segment.prefix_end] += d_value[: segment.prefix_length]
        ctx.graphs = None
        return grad_query, grad_key, grad_value, None, None


@dataclass(frozen=True)
class _SegmentGraph:
    """One segment's attention with a graph of its own."""

    inputs: tuple[Tensor, Tensor, Tensor]
    """Query, and key and value with the prefix before them."""
    attended: Tensor

    @classmethod
    def compute(
        cls, query: Tensor, key: Tensor, value: Tensor, segment: Segment, options: ScoreOptions, needs_grad: bool
    ) -> "_SegmentGraph":
        own = slice(segment.start, segment.end)
        prefix = slice(segment.prefix_start, segment.prefix_end)
        parts = [query[own], key[own], value[own]]
        if segment.prefix_length:
            parts[1:] = torch.cat((key[prefix], parts[1])), torch.cat((value[prefix], parts[2]))
        with torch.set_grad_enabled(needs_grad):
            first, second, third = (part.detach().requires_grad_(needs_grad) for part in parts)
            return cls((first, second, third), _attend(first, second, third, segment, options))


def _attend(query: Tensor, key: Tensor, value: Tensor, segment: Segment, options: ScoreOptions) -> Tensor:
    """[length, N, D], [prefix_length + length, K, D] twice to [length, N, D]."""
    query, key, value = (tensor.transpose(0, 1)[None] for tensor in (query, key, value))
    window = options.sliding_window
    if options.softcap is not None:
        return _attend_softcapped(query, key, value, segment_mask(segment, window, query.device), options)
    is_causal = not segment.prefix_length and (window is None or window >= segment.length)
    mask = None if is_causal else segment_mask(segment, window, query.device)
    attended = functional.scaled_dot_product_attention(
        query, key, value, mask, is_causal=is_causal, scale=options.scaling, enable_gqa=query.shape[1] != key.shape[1]
    )
    return attended[0].transpose(0, 1)


def _attend_softcapped(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, options: ScoreOptions) -> Tensor:
    """Scores and softmax in float32; SDPA has no soft cap."""
    assert options.softcap is not None
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scaling = options.scaling if options.scaling is not None else query.shape[-1] ** -0.5
    scores = (query @ key.transpose(2, 3)).float() * scaling
    scores = torch.tanh(scores / options.softcap) * options.softcap
    attended = scores.masked_fill(~mask, float("-inf")).softmax(-1).to(value.dtype) @ value
    return attended[0].transpose(0, 1)


AttentionInterface.register(PACKED_ATTENTION, packed_attention)
