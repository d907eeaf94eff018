"""Packed attention on CUDA: one call of torch's flash kernel over sequences of different lengths.

The kernel takes, for every segment, its queries and the keys it sees: keys of a shared prompt are gathered once more
for each response that uses them. A causal mask is aligned to the end of the keys, so that the last query sees all.

Legend: T packed tokens, G gathered keys, N query heads, K key/value heads, D head size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

KERNEL_DTYPES = (torch.bfloat16, torch.float16)
_MAX_HEAD_SIZE = 256


class _Segment(Protocol):
    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...
    @property
    def prefix(self) -> tuple[tuple[int, int], ...]: ...


@dataclass(frozen=True, kw_only=True)
class VarlenPlan:
    """Arguments of the kernel for one layout, on the device."""

    key_places: Tensor | None
    """[G] int64 packed places of the keys, segment by segment; None where that is 0..T-1."""
    query_ends: Tensor
    """[segments + 1] int32, cumulative."""
    key_ends: Tensor
    """[segments + 1] int32, cumulative."""
    longest_query: int
    longest_key: int


def plan_varlen(segments: Sequence[_Segment], device: torch.device | str) -> VarlenPlan:
    """Compute the kernel's arguments for segments in order and without gaps."""
    query_lengths = [segment.end - segment.start for segment in segments]
    spans = [(*segment.prefix, (segment.start, segment.end)) for segment in segments]
    key_lengths = [sum(end - start for start, end in ranges) for ranges in spans]
    places = None
    if key_lengths != query_lengths:
        keys = np.concatenate([np.arange(*span) for ranges in spans for span in ranges])
        places = _to_device(keys.astype(np.int64), device)
    return VarlenPlan(
        key_places=places,
        query_ends=_to_device(np.asarray([0, *accumulate(query_lengths)], np.int32), device),
        key_ends=_to_device(np.asarray([0, *accumulate(key_lengths)], np.int32), device),
        longest_query=max(query_lengths),
        longest_key=max(key_lengths),
    )


def can_use_varlen(query: Tensor, value: Tensor, softcap: float | None) -> bool:
    """Whether the kernel supports the inputs: [1, N, T, D] in 16 bits, heads of equal size, no soft cap."""
    head_size = query.shape[-1]
    return (
        query.is_cuda
        and query.dtype in KERNEL_DTYPES
        and head_size == value.shape[-1]
        and head_size <= _MAX_HEAD_SIZE
        and head_size % 8 == 0
        and softcap is None
    )


def varlen_attention(
    query: Tensor, key: Tensor, value: Tensor, plan: VarlenPlan, scaling: float | None, sliding_window: int | None
) -> Tensor:
    """Compute attention of queries [T, N, D] over keys and values [T, K, D], differentiable."""
    if plan.key_places is not None:
        key, value = key.index_select(0, plan.key_places), value.index_select(0, plan.key_places)
    # The operator behind scaled_dot_product_attention: its public wrapper, torch.nn.attention.varlen, took other
    # arguments in every release so far.
    output: Tensor = torch.ops.aten._flash_attention_forward(
        query.contiguous(),
        key.contiguous(),
        value.contiguous(),
        plan.query_ends,
        plan.key_ends,
        plan.longest_query,
        plan.longest_key,
        0.0,  # dropout
        True,  # causal
        False,  # debug mask
        scale=scaling,
        window_size_left=None if sliding_window is None else sliding_window - 1,
        window_size_right=None if sliding_window is None else 0,
    )[0]
    return output


def _to_device(values: NDArray[np.integer], device: torch.device | str) -> Tensor:
    tensor = torch.from_numpy(values)
    if torch.device(device).type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
