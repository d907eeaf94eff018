"""Sharding of a model over the devices of a run with FSDP2, torch's `fully_shard`.

Every rank keeps a part of each parameter, of its gradient and of the optimizer's states; a layer's weights are put
together while it computes. Parts are float32: the master weights themselves. What is put together for computing is
rounded to the run's precision first, as `core.training.steps.optimizer` does on one device. Gradients are added up
in float32.
"""

import math
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from itertools import groupby
from types import MethodType
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from core.training.model.capabilities import SHARDED_CALL
from core.training.model.logps import SHARDED_SCORING, score_tokens
from core.training.model.rewards import SHARDED_REWARDS, compute_rewards
from core.training.ranks import Ranks

_COMPUTE_DTYPE = "preftune_compute_dtype"
_Result = TypeVar("_Result")


def shard(
    model: PreTrainedModel, ranks: Ranks, dtype: torch.dtype, device: torch.device, *, within_nodes: bool = False
) -> PreTrainedModel:
    """Shard the model in place, layer by layer: of what lies in files, one layer at a time is in memory.

    Args:
        dtype: that it computes in; weights that were read in another floating type are rounded to it.
        device: of the shards.
        within_nodes: each node keeps the whole; else all ranks share one.
    """
    if within_nodes and ranks.num_nodes > 1:
        shape = (ranks.num_nodes, ranks.local_size)
        mesh = init_device_mesh(device.type, shape, mesh_dim_names=("nodes", "devices"))
    else:
        mesh = init_device_mesh(device.type, (ranks.size,))
    policy = MixedPrecisionPolicy(
        param_dtype=None if dtype == torch.float32 else dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    for module in (*_layers(model), model):
        _round(module, dtype)
        fully_shard(module, mesh=mesh, mp_policy=policy)
    for module in _sharded_modules(model):
        module.set_gradient_divide_factor(1.0)  # the loss is divided by the rows of the whole step already
        module.set_force_sum_reduction_for_comms(True)
    setattr(model, _COMPUTE_DTYPE, dtype)
    for name, function in (
        (SHARDED_SCORING, score_tokens),
        (SHARDED_REWARDS, compute_rewards),
        (SHARDED_CALL, _call),
    ):
        setattr(model, name, MethodType(function, model))
        register_fsdp_forward_method(model, name)
    return model


def _round(module: nn.Module, dtype: torch.dtype) -> None:
    """Round the weights that no rank has a part of yet; trainable ones become float32 masters."""
    for parameter in module.parameters():
        if not isinstance(parameter, DTensor) and parameter.is_floating_point():
            rounded = parameter.data.to(dtype)
            parameter.data = rounded.float() if parameter.requires_grad else rounded


def _call(_model: PreTrainedModel, function: Callable[..., _Result], *args: Any) -> _Result:
    return function(*args)


class NamedWeight(NamedTuple):
    """One tensor of a model's state."""

    name: str
    tensor: Tensor
    """Whole, in the type that the model computes in; of a sharded model only until the next one is asked for."""
    identity: Hashable
    """The same for names of one tensor."""


@contextmanager
def passing_weights(model: nn.Module) -> Iterator[Iterator[NamedWeight]]:
    """Yield an iterator over `model.state_dict()`, of which one layer is whole at a time. All ranks enter together.

    Ranks that take fewer weights than others pass the rest by at the end, so that none is left waiting.
    """
    weights = _sharded_weights(model) if isinstance(model, FSDPModule) else _own_weights(model)
    try:
        yield weights
    finally:
        for _ in weights:
            continue


def reshard(model: nn.Module) -> None:
    """Free what was put together and kept for the next pass; before parameters are changed or asked for by name."""
    for module in _sharded_modules(model):
        module.reshard()


def is_sharded(model: nn.Module) -> bool:
    return isinstance(model, FSDPModule)


def compute_dtype(model: PreTrainedModel) -> torch.dtype:
    """Return the type that the model computes in, which its shards may not have."""
    dtype: torch.dtype = getattr(model, _COMPUTE_DTYPE, model.dtype)
    return dtype


def whole_tensor(model: nn.Module, tensor: Tensor) -> Tensor:
    """Gather a parameter on all ranks, in the type that the model computes in; of an unsharded model itself."""
    if not isinstance(tensor, DTensor):
        return tensor.clone() if is_sharded(model) else tensor  # whole for now: the next reshard frees its memory
    rounded = tensor.to(getattr(model, _COMPUTE_DTYPE))
    assert isinstance(rounded, DTensor)
    return rounded.full_tensor()


def _own_weights(model: nn.Module) -> Iterator[NamedWeight]:
    for name, tensor in model.state_dict().items():
        # Empty tensors have no place of their own.
        yield NamedWeight(name, tensor, (tensor.data_ptr(), tensor.shape) if tensor.numel() else name)


def _sharded_weights(model: nn.Module) -> Iterator[NamedWeight]:
    for unit, places in groupby(_places(model), key=lambda place: place.unit):
        unit.unshard()
        try:
            for place in places:
                yield NamedWeight(place.name, getattr(place.module, place.leaf).detach(), place.identity)
        finally:
            unit.reshard()


class _Place(NamedTuple):
    name: str
    module: nn.Module
    leaf: str
    unit: FSDPModule
    """The module with which it is made whole."""
    identity: int


def _places(model: nn.Module) -> list[_Place]:
    """Return where the tensors of a sharded model's state are, in the order of `state_dict`."""
    found, units = [], {prefix: unit for prefix, unit in model.named_modules() if isinstance(unit, FSDPModule)}
    for prefix, module in model.named_modules(remove_duplicate=False):
        kept = [item for item in module._buffers.items() if item[0] not in module._non_persistent_buffers_set]
        owner = max((unit for unit in units if f"{prefix}.".startswith(f"{unit}." if unit else "")), key=len)
        for leaf, tensor in (*module._parameters.items(), *kept):
            if tensor is not None:
                name = f"{prefix}.{leaf}" if prefix else leaf
                found.append(_Place(name, module, leaf, units[owner], id(tensor)))
    return found


def own_part(tensor: Tensor) -> Tensor:
    """Return this rank's rows of a sharded parameter or gradient, sharing its memory; any other tensor itself."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def num_copies(parameter: nn.Parameter, ranks: Ranks) -> int:
    """Return how many ranks have the same part of a parameter."""
    if not isinstance(parameter, DTensor):
        return ranks.size
    sizes, placements = parameter.device_mesh.shape, parameter.placements
    return math.prod(size for size, placement in zip(sizes, placements, strict=True) if placement.is_replicate())


def as_part(part: Tensor, parameter: nn.Parameter) -> Tensor:
    """Return this rank's rows of something shaped like a parameter, as a part of the whole; alone itself."""
    if not isinstance(parameter, DTensor):
        return part
    return DTensor.from_local(
        part,
        parameter.device_mesh,
        parameter.placements,
        run_check=False,
        shape=parameter.shape,
        stride=parameter.stride(),
    )


def _sharded_modules(model: nn.Module) -> list[FSDPModule]:
    return [module for module in model.modules() if isinstance(module, FSDPModule)]


def _layers(model: PreTrainedModel) -> list[nn.Module]:
    """Return the repeated blocks; without them the model is gathered as a whole."""
    count = model.config.get_text_config().num_hidden_layers
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module) == count]
    return list(lists[0]) if lists else []
