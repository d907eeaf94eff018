"""Attention over packed rows: which token attends to which, and the attention function that models call.

A micro-batch is one long row of T tokens without padding, cut into segments. A token sees the tokens before it in its
own segment, itself, and the segment's prefix: the prompt, where a rejected response shares the chosen one's.

Legend: T packed tokens, N query heads, K key/value heads, D head size.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import AttentionInterface

from core.training.kernels.attention_plan import BlockPlan, Segment
from core.training.kernels.block_attention import ScoreOptions, block_attention
from core.training.kernels.varlen_attention import VarlenPlan, can_use_varlen, varlen_attention

PACKED_ATTENTION = "preftune_packed"
"""Name under which `packed_attention` is registered with transformers."""


@dataclass(frozen=True, kw_only=True)
class AttentionLayout:
    """The segments of a packed row, in order and without gaps."""

    segments: tuple[Segment, ...]
    varlen: VarlenPlan | None = None
    """The same for the CUDA kernel; None on other devices."""
    _plans: dict[int | None, BlockPlan] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def num_tokens(self) -> int:
        return self.segments[-1].end

    def plan(self, sliding_window: int | None) -> BlockPlan:
        """For `block_attention`: planned once, whatever the number of layers."""
        if sliding_window not in self._plans:
            self._plans[sliding_window] = BlockPlan(self.segments, sliding_window)
        return self._plans[sliding_window]


class LayoutNotDelivered(RuntimeError):
    """Attention was called in a way that packed rows do not allow: this model cannot be packed."""


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
        packed_layout: passed to the model's forward by `core.training.model.hidden_states`.

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
        output = block_attention(query, key, value, packed_layout.plan(sliding_window), options)
    return output[None], None


AttentionInterface.register(PACKED_ATTENTION, packed_attention)
