"""Attention over packed rows: which token sees which, and the function models call for it.

A micro-batch is one long row of T tokens without padding, cut into segments. A token sees the tokens before it in its
own segment, itself, and the segment's prefix: the prompt, where a rejected response shares the chosen one's.

Legend: T packed tokens, N query heads, K key/value heads, D head size.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface

PACKED_ATTENTION = "preftune_packed"
"""Name under which `packed_attention` is registered with transformers."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Tokens [start, end) of the packed row; they also see the tokens [prefix_start, prefix_end)."""

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

    @property
    def num_tokens(self) -> int:
        return self.segments[-1].end


class LayoutNotDelivered(RuntimeError):
    """The model's code called attention without the layout it was given: this model cannot be packed."""


def segment_mask(segment: Segment, sliding_window: int | None, device: torch.device) -> Tensor:
    """[length, prefix_length + length] bool: True where a query of the segment sees a key of prefix and segment.

    `sliding_window` w keeps the last w keys, the query's own included, as transformers counts it.
    """
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
        packed_layout: passed to the model's forward by `core.training.logps`.

    Returns:
        [1, T, N, D] and no weights.

    Raises:
        LayoutNotDelivered: without a layout, with a dense mask, or with a position bias or attention sinks, which
            are not computed here.
    """
    if packed_layout is None or attention_mask is not None or dropout:
        raise LayoutNotDelivered(type(module).__name__)
    if any(kwargs.get(name) is not None for name in ("s_aux", "position_bias", "cache")):
        raise LayoutNotDelivered(type(module).__name__)
    outputs = []
    for segment in packed_layout.segments:
        own = slice(segment.start, segment.end)
        prefix = slice(segment.prefix_start, segment.prefix_end)
        keys, values = key[:, :, own], value[:, :, own]
        if segment.prefix_length:
            keys = torch.cat((key[:, :, prefix], keys), dim=2)
            values = torch.cat((value[:, :, prefix], values), dim=2)
        outputs.append(_attend(query[:, :, own], keys, values, segment, scaling, sliding_window, softcap))
    return torch.cat(outputs, dim=2).transpose(1, 2), None


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    segment: Segment,
    scaling: float | None,
    sliding_window: int | None,
    softcap: float | None,
) -> Tensor:
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    needs_window = sliding_window is not None and sliding_window < key.shape[2]
    if softcap is not None:
        scores = query @ key.transpose(2, 3) * (scaling if scaling is not None else query.shape[-1] ** -0.5)
        scores = torch.tanh(scores.float() / softcap) * softcap
        scores = scores.masked_fill(~segment_mask(segment, sliding_window, query.device), float("-inf"))
        return scores.softmax(-1).to(value.dtype) @ value
    is_causal = not segment.prefix_length and not needs_window
    mask = None if is_causal else segment_mask(segment, sliding_window, query.device)
    return functional.scaled_dot_product_attention(query, key, value, mask, is_causal=is_causal, scale=scaling)


AttentionInterface.register(PACKED_ATTENTION, packed_attention)
