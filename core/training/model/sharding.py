"""Sharding of a model over the devices of a run with FSDP2, torch's `fully_shard`.

Every rank keeps a part of each parameter, of its gradient and of the optimizer's states; a layer's weights are put
together while it computes. Parts are float32: the master weights themselves. What is put together for computing is
rounded to the run's precision first, as `core.training.steps.optimizer` does on one device. Gradients are added up
in float32.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from core.training.model.logps import SHARDED_SCORING, score_tokens
from core.training.ranks import Ranks


def shard(model: PreTrainedModel, ranks: Ranks) -> PreTrainedModel:
    """Shard the model in place; on a single device it stays as it is."""
    if ranks.size == 1:
        return model
    dtype = model.dtype
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    mesh = init_device_mesh(model.device.type, (ranks.size,))
    policy = MixedPrecisionPolicy(
        param_dtype=None if dtype == torch.float32 else dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    for module in (*_layers(model), model):
        fully_shard(module, mesh=mesh, mp_policy=policy)
    for module in _sharded_modules(model):
        module.set_gradient_divide_factor(1.0)  # the loss is divided by the rows of the whole step already
        module.set_force_sum_reduction_for_comms(True)
    setattr(model, SHARDED_SCORING, MethodType(score_tokens, model))
    register_fsdp_forward_method(model, SHARDED_SCORING)
    return model


@contextmanager
def whole_weights(model: nn.Module) -> Iterator[None]:
    """Gather all compute weights as plain tensors on every rank, for saving. All ranks enter together."""
    modules = _sharded_modules(model)
    for module in modules:
        module.unshard()
    try:
        yield
    finally:
        for module in modules:
            module.reshard()


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """Return `model.state_dict()`, safe inside `whole_weights` on a sharded model."""
    if not isinstance(model, FSDPModule):
        return model.state_dict()
    state = {}
    for prefix, module in model.named_modules(remove_duplicate=False):
        kept = [item for item in module._buffers.items() if item[0] not in module._non_persistent_buffers_set]
        for name, tensor in (*module._parameters.items(), *kept):
            if tensor is not None:
                state[f"{prefix}.{name}" if prefix else name] = tensor.detach()
    return state


def own_part(tensor: Tensor) -> Tensor:
    """Return this rank's rows of a sharded parameter or gradient, sharing its memory; any other tensor itself."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def cut_rows(whole: Tensor, ranks: Ranks) -> Tensor:
    """Return the rows of a whole tensor that this rank keeps: FSDP2 cuts as `torch.chunk` does."""
    if ranks.size == 1:
        return whole
    parts = whole.chunk(ranks.size)
    return parts[ranks.rank] if ranks.rank < len(parts) else whole[:0]


def join_rows(part: Tensor, num_rows: int, ranks: Ranks) -> Tensor:
    """Gather the whole tensor from all ranks' rows into the leader's host memory; the others get no rows."""
    if ranks.size == 1:
        return part
    whole = part.new_zeros(num_rows, *part.shape[1:])
    cut_rows(whole, ranks).copy_(part)
    ranks.merge(whole)
    return whole.cpu() if ranks.is_leader else whole[:0]


def _sharded_modules(model: nn.Module) -> list[FSDPModule]:
    return [module for module in model.modules() if isinstance(module, FSDPModule)]


def _layers(model: PreTrainedModel) -> list[nn.Module]:
    """Return the repeated blocks; without them the model is gathered as a whole."""
    count = model.config.get_text_config().num_hidden_layers
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module) == count]
    return list(lists[0]) if lists else []
