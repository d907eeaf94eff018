"""Trained weights as the plain model's: the adapter added in float32, rounded once to the published type.

Weights in bfloat16 lie on a grid of three digits. An update under half a step of it is rounded to exactly nothing, so
what small learning rates have taught is lost as a whole and not as noise. A merged policy is therefore published in
float32 unless asked otherwise, and what rounding costs is measured on the weights themselves.

Bounded: one weight is held at a time, in float32; the merged ones lie in files of the target's disk until they are
written. The product of an adapter's matrices is formed on the host, so that it has the same bits wherever the model is.
"""

import hashlib
import os
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from core.training.model.adapters.adapters import Wrapper, wrappers
from core.training.model.sharding import NamedWeight, compute_dtype, is_sharded, passing_weights

_CHUNK = 2**24
"""Elements that are hashed or summed at a time."""


@dataclass(frozen=True)
class TrainedWeight:
    """One tensor of the plain model's state."""

    name: str
    base: Tensor
    update: Tensor | None = None
    """float32, on the host, in the weight's own orientation; None where no adapter is."""
    identity: Hashable = None
    """The same for tied tensors."""

    def rounded(self, dtype: torch.dtype | None = None) -> Tensor:
        """Return the trained tensor in a floating type, by default its own; on the host where an adapter was added."""
        value = self.base if self.update is None else self.base.detach().cpu().float() + self.update
        return value.to(dtype or self.base.dtype) if value.is_floating_point() else value


@dataclass(frozen=True, kw_only=True)
class RoundingLoss:
    """Loss by publishing in a type: the adapter's update D to weights W becomes R = round(W + D) - W."""

    dtype: str
    """Type of the published weights: `float32` or `bfloat16`."""
    num_weights: int
    """That the adapter changes."""
    share_kept: float
    """<R, D> / <D, D>: 1 when nothing is lost, 0 when nothing is left. 1 for an adapter that changes nothing."""
    share_unmoved: float
    """Weights with an update that keep the base model's value."""


class RoundingMeter:
    """Accumulates a `RoundingLoss`, one weight after another."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._kept = self._whole = 0.0
        self._num_unmoved = self._num_weights = 0

    def add(self, weight: TrainedWeight, rounded: Tensor) -> None:
        if weight.update is None:
            return
        pieces = (torch.split(tensor.reshape(-1), _CHUNK) for tensor in (weight.base, rounded, weight.update))
        for base, published, update in zip(*pieces, strict=True):
            moved = published.cpu().double() - base.detach().cpu().double()
            wanted = update.double()
            self._kept += float(moved @ wanted)
            self._whole += float(wanted @ wanted)
            self._num_unmoved += int(((moved == 0) & (wanted != 0)).sum())
            self._num_weights += update.numel()

    def total(self) -> RoundingLoss | None:
        """Return the loss so far; None when no adapter was added to anything."""
        if not self._num_weights:
            return None
        return RoundingLoss(
            dtype=str(self._dtype).removeprefix("torch."),
            num_weights=self._num_weights,
            share_kept=self._kept / self._whole if self._whole else 1.0,
            share_unmoved=self._num_unmoved / self._num_weights,
        )


def trained_weights(model: PreTrainedModel, passing: Iterable[NamedWeight] | None = None) -> Iterator[TrainedWeight]:
    """Yield the plain model's state, tensor by tensor; the model is not changed.

    Args:
        passing: the weights of a sharded model as they pass by (`sharding.passing_weights`).
    """
    if passing is None:
        with passing_weights(model) as weights:
            yield from trained_weights(model, weights)
        return
    adapted = wrappers(model)
    for name, tensor, identity in passing:
        owner, leaf = _owner(name, adapted)
        if owner is None:
            yield TrainedWeight(name, tensor, None, identity)
        elif leaf.startswith("base."):
            leaf = leaf.removeprefix("base.")
            update = adapted[owner].updates.get(leaf)
            yield TrainedWeight(f"{owner}.{leaf}", tensor, None if update is None else update(), identity)


def merged_state_dict(
    model: PreTrainedModel,
    dtype: torch.dtype | None = None,
    spool: Path | None = None,
    passing: Iterable[NamedWeight] | None = None,
) -> tuple[dict[str, Tensor], RoundingLoss | None]:
    """Return the plain model's state in a floating type, by default each tensor's own, and the rounding loss.

    Args:
        spool: an empty directory for the tensors that are made here; None: they stay in memory.
        passing: the weights of a sharded model as they pass by; all of its tensors are made here.

    Raises:
        OSError: ENOSPC and the like.
    """
    state: dict[str, Tensor] = {}
    made: dict[Hashable, Tensor] = {}
    meter = RoundingMeter(dtype or compute_dtype(model))
    is_passing = is_sharded(model)
    for weight in trained_weights(model, passing):
        if weight.update is None and weight.identity in made:  # tied to one that was seen
            state[weight.name] = made[weight.identity]
            continue
        value = weight.rounded(dtype)
        meter.add(weight, value)
        if (value is not weight.base or is_passing) and spool is not None:
            value = _in_file(value, spool / str(len(state)))
        if weight.update is None:
            made[weight.identity] = value
        state[weight.name] = value
    return state, meter.total()


def weight_digests(weights: Iterable[tuple[str, Tensor]]) -> dict[str, str]:
    """Return digests of tensors by name, the same for equal numbers in whichever floating type."""
    return {name: _digest(tensor) for name, tensor in weights}


def _owner(name: str, adapted: Mapping[str, Wrapper]) -> tuple[str | None, str]:
    """Return the adapted module that a tensor of the state is in, and the tensor's name there."""
    parts = name.split(".")
    for length in range(1, len(parts)):
        owner = ".".join(parts[:length])
        if owner in adapted:
            return owner, ".".join(parts[length:])
    return None, name


def _digest(tensor: Tensor) -> str:
    found = hashlib.blake2b(str(tuple(tensor.shape)).encode(), digest_size=20)
    for piece in torch.split(tensor.detach().reshape(-1), _CHUNK):
        # A copy: what numpy has seen of a tensor that is spread out (FSDP2) could not be given back.
        dtype = torch.float32 if piece.is_floating_point() else torch.int64
        found.update(piece.to("cpu", dtype, copy=True).numpy().data)
    return found.hexdigest()


def _in_file(tensor: Tensor, path: Path) -> Tensor:
    """Return the tensor mapped from a new file, preallocated since a mapping cannot report a full disk."""
    if not tensor.numel():
        return tensor
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, tensor.numel() * tensor.element_size())
    finally:
        os.close(descriptor)
    held = torch.from_file(str(path), shared=True, size=tensor.numel(), dtype=tensor.dtype).view(tensor.shape)
    return held.copy_(tensor)
