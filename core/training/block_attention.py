"""Attention over packed rows by blocks of queries: the path for CPUs, and for what a CUDA kernel cannot do.

A block takes some queries and just those keys that any of them sees, so the upper triangle and masked squares cost
little, and what is formed at a time stays in the cache. Scores and softmax are float32 whatever the model's dtype.
Short blocks keep their probabilities for the backward pass; long ones compute them again, so that memory stays linear
in T (the tiling of arXiv:2205.14135, without its online softmax: a block sees all its keys at once).

torch's own kernel gives the same numbers; its backward pass on a CPU takes two to three times as long on the short
sequences of preference data (`docs/performance.md`).

Legend: T packed tokens, N query heads, K key/value heads, G = N / K, D head size, n queries and m keys of a block.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

QUERY_ROWS = 128
"""A longer segment is cut into blocks of about so many queries."""
JOINED_TOKENS = 256
"""A prompt with both responses, up to this length, is one block: fewer, larger products beat skipping a square."""
KEPT_SCORES = 2**16
"""Up to this many scores a head, a block's probabilities are kept for the backward pass."""

MOST_KEPT_KEYS = KEPT_SCORES // QUERY_ROWS
"""So about this many scores are kept of a token and head, but of a short response after a long prompt."""


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
class ScoreOptions:
    """How scores are formed from query and key."""

    scaling: float | None = None
    """None: D ** -0.5."""
    sliding_window: int | None = None
    """Each query sees this many keys at most, its own included."""
    softcap: float | None = None
    """Scores become softcap * tanh(score / softcap)."""


class Block:
    """Queries [start, end) of one segment, or of a segment and the one that shares its beginning, and their keys."""

    def __init__(self, start: int, end: int, keys: Sequence[tuple[int, int]], segments: Sequence[Segment]) -> None:
        self.queries = slice(start, end)
        self.ranges = [slice(*bounds) for bounds in keys]
        self.num_queries = end - start
        self.num_keys = sum(stop - first for first, stop in keys)
        self.is_small = self.num_queries * self.num_keys <= KEPT_SCORES
        self._segments = segments
        self._bias: Tensor | None = None

    def gather(self, tensor: Tensor) -> Tensor:
        """[K, T, D] to [K, m, D]: the block's keys."""
        if len(self.ranges) == 1:
            return tensor[:, self.ranges[0]]
        return torch.cat([tensor[:, part] for part in self.ranges], dim=1)

    def scatter_add(self, total: Tensor, part: Tensor) -> None:
        """[K, m, D] to where its keys stand in [K, T, D]."""
        start = 0
        for keys in self.ranges:
            stop = start + keys.stop - keys.start
            total[:, keys] += part[:, start:stop]
            start = stop

    def bias(self, window: int | None, device: torch.device) -> Tensor:
        """[n, c] float32 for the last c keys: 0 where a query sees a key, else -inf. All see the keys before those.

        Formed once for all layers, unless it is large.
        """
        if self._bias is not None:
            return self._bias
        keys = torch.cat([torch.arange(part.start, part.stop, device=device) for part in self.ranges])
        if window is None and len(self._segments) == 1:
            keys = keys[-self.num_queries :]
        bias = torch.full((self.num_queries, len(keys)), float("-inf"), device=device)
        for segment in self._segments:
            first, last = max(segment.start, self.queries.start), min(segment.end, self.queries.stop)
            queries = torch.arange(first, last, device=device)[:, None]
            is_own = keys >= segment.start
            is_prefix = (keys >= segment.prefix_start) & (keys < segment.prefix_end)
            visible = (keys <= queries) & (is_own | is_prefix)
            if window is not None:
                gap = segment.start - segment.prefix_end if segment.prefix_length else 0
                visible &= queries - keys - torch.where(is_own, 0, gap) < window
            bias[first - self.queries.start : last - self.queries.start].masked_fill_(visible, 0.0)
        if bias.numel() <= KEPT_SCORES:
            self._bias = bias
        return bias


def plan_blocks(segments: Sequence[Segment], window: int | None = None) -> list[Block]:
    """Every query once, in order."""
    blocks: list[Block] = []
    position = 0
    while position < len(segments):
        segment = segments[position]
        following = segments[position + 1] if position + 1 < len(segments) else None
        if following is not None and _is_joined(segment, following):
            span = (segment.start, following.end)
            blocks.append(Block(*span, [span], (segment, following)))
            position += 2
            continue
        blocks += _cut(segment, window)
        position += 1
    return blocks


def block_attention(
    query: Tensor, key: Tensor, value: Tensor, blocks: Sequence[Block], options: ScoreOptions
) -> Tensor:
    """[T, N, D] and [T, K, D] twice (the values may have a size of their own) to [T, N, D], differentiable."""
    output: Tensor = _BlockAttention.apply(query, key, value, blocks, options)  # type: ignore[no-untyped-call]
    return output


def _is_joined(segment: Segment, following: Segment) -> bool:
    shares = following.prefix_length > 0 and following.prefix_start == segment.start and not segment.prefix_length
    return shares and following.end - segment.start <= JOINED_TOKENS


def _cut(segment: Segment, window: int | None) -> list[Block]:
    """Blocks of nearly equal size; keys that the window hides from all of a block's queries are left out."""
    count = -(-segment.length // QUERY_ROWS)
    bounds = [segment.start + segment.length * i // count for i in range(count + 1)]
    blocks = []
    for start, end in pairwise(bounds):
        hidden = 0 if window is None else max(0, segment.prefix_length + start - segment.start - window + 1)
        own = (segment.start + max(0, hidden - segment.prefix_length), end)
        keys = [own]
        if hidden < segment.prefix_length:
            keys.insert(0, (segment.prefix_start + hidden, segment.prefix_end))
        blocks.append(Block(start, end, keys, (segment,)))
    return blocks


class _BlockAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, blocks: Sequence[Block], options: ScoreOptions
    ) -> Tensor:
        scores = _Scores(query, key, blocks, options)
        values = value.transpose(0, 1)
        output = query.new_empty(*query.shape[:2], value.shape[2])
        by_group = _by_group(output, key.shape[1])
        kept = []
        for block in blocks:
            probabilities = scores.probabilities(block).to(value.dtype)
            attended = torch.bmm(probabilities, block.gather(values))
            by_group[:, :, block.queries] = attended.view(*by_group.shape[:2], block.num_queries, -1)
            if any(ctx.needs_input_grad) and scores.keeps(block):
                kept.append(probabilities)
        ctx.blocks, ctx.options = blocks, options
        ctx.save_for_backward(query, key, value, output, *kept)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, output, *saved = ctx.saved_tensors
        kept, num_groups = iter(saved), key.shape[1]
        scores = _Scores(query, key, ctx.blocks, ctx.options)
        keys, values = key.transpose(0, 1), value.transpose(0, 1)
        queries, grads = _by_group(query, num_groups), _by_group(grad_output, num_groups)
        # Per query, sum over keys of p * dp: what the softmax takes off.
        shares = _by_group((grad_output * output).sum(-1, keepdim=True, dtype=scores.dtype), num_groups)
        grad_query = torch.empty_like(query)
        grad_query_by_group = _by_group(grad_query, num_groups)
        grad_key = torch.zeros_like(keys, dtype=scores.dtype)
        grad_value = torch.zeros_like(values, dtype=scores.dtype)
        for block in ctx.blocks:
            probabilities = next(kept) if scores.keeps(block) else scores.probabilities(block)
            own, grad = _rows(queries, block), _rows(grads, block)
            slopes = torch.bmm(grad, block.gather(values).transpose(1, 2)) - _rows(shares, block)
            slopes *= probabilities
            if (cap_slopes := scores.cap_slopes(block)) is not None:
                slopes *= cap_slopes
            slopes = slopes.to(query.dtype)
            grad_query_by_group[:, :, block.queries] = torch.bmm(slopes, block.gather(keys)).view(
                *queries.shape[:2], block.num_queries, -1
            )
            block.scatter_add(grad_key, torch.bmm(slopes.transpose(1, 2), own))
            block.scatter_add(grad_value, torch.bmm(probabilities.to(grad.dtype).transpose(1, 2), grad))
        grad_query *= scores.scaling
        grad_key *= scores.scaling
        return (
            grad_query,
            grad_key.transpose(0, 1).to(key.dtype),
            grad_value.transpose(0, 1).to(value.dtype),
            None,
            None,
        )


class _Scores:
    """Scores of one layer, a block at a time, at least in float32."""

    def __init__(self, query: Tensor, key: Tensor, blocks: Sequence[Block], options: ScoreOptions) -> None:
        self.dtype = torch.promote_types(query.dtype, torch.float32)
        self.scaling = options.scaling if options.scaling is not None else query.shape[-1] ** -0.5
        self._options = options
        self._num_groups = key.shape[1]
        self._query, self._key = query, key
        self._operands: tuple[Tensor, Tensor] | None = None

    def keeps(self, block: Block) -> bool:
        """Whether the forward pass leaves the block's probabilities to the backward pass."""
        return block.is_small and self._options.softcap is None

    def probabilities(self, block: Block) -> Tensor:
        """[K, G n, m]"""
        scores = self._scores(block)
        if self._options.softcap is not None:
            scores = torch.tanh(scores / self._options.softcap) * self._options.softcap
        shape = scores.shape
        by_query = scores.view(shape[0], -1, block.num_queries, block.num_keys)
        bias = block.bias(self._options.sliding_window, scores.device)
        by_query[..., -bias.shape[1] :] += bias
        return torch.softmax(by_query, dim=-1).view(shape)

    def cap_slopes(self, block: Block) -> Tensor | None:
        """[K, G n, m] derivative of the soft cap: 1 - tanh²; None without one."""
        softcap = self._options.softcap
        return None if softcap is None else 1 - torch.tanh(self._scores(block) / softcap).square()

    def _scores(self, block: Block) -> Tensor:
        if self._operands is None:
            query = _by_group(self._query, self._num_groups).to(self.dtype) * self.scaling
            self._operands = query, self._key.transpose(0, 1).to(self.dtype)
        query, key = self._operands
        return torch.bmm(_rows(query, block), block.gather(key).transpose(1, 2))


def _by_group(tensor: Tensor, num_groups: int) -> Tensor:
    """[T, N, D] to a view [K, G, T, D]."""
    num_tokens, num_heads, size = tensor.shape
    return tensor.view(num_tokens, num_groups, num_heads // num_groups, size).permute(1, 2, 0, 3)


def _rows(tensor: Tensor, block: Block) -> Tensor:
    """[K, G, T, D] to the block's [K, G n, D]."""
    return tensor[:, :, block.queries].flatten(1, 2)
