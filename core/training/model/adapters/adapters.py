"""Low-rank adapters in a model: insertion, extraction as tensors, and merging into the weights.

Legend: r rank, I input features, O output features.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from core.training.kernels.lora_experts import ExpertAdapter, LoraExperts
from core.training.kernels.lora_linear import LoraGroup, LoraLinear
from core.training.model.adapters.targets import (
    ALL_EXPERTS,
    ALL_LINEAR,
    UnsupportedAdapter,
    find_expert_targets,
    find_targets,
    linear_layers,
)
from core.training.model.capabilities import reward_head_of
from core.training.model.sharding import whole_tensor

Wrapper = LoraLinear | LoraExperts
"""What stands in the place of an adapted module, `base` inside it."""

_SAME_INPUT = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Layers of one parent that models apply to one tensor. Where one does not, the results are right but cost more."""


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Settings of one adapter."""

    rank: int
    alpha: float
    dropout: float = 0.0
    target_modules: Literal["all-linear"] | Sequence[str] = ALL_LINEAR
    target_parameters: Literal["all-experts"] | Sequence[str] = ()

    @property
    def scaling(self) -> float:
        return self.alpha / self.rank


def inject(
    model: PreTrainedModel, config: LoraConfig, seed: int, dtype: torch.dtype | None = None
) -> list[nn.Parameter]:
    """Freeze the model and put adapters into its linear layers and experts; the outputs stay as they were (B = 0).

    The head of a reward model is not frozen: it is trained whole.

    A is drawn on the CPU from `seed`, so that every machine starts with the same adapter.

    Args:
        dtype: of the adapters; None: as the weights that they are for.

    Returns:
        The adapter's parameters, in a stable order: those to train.

    Raises:
        UnsupportedAdapter: the model has an adapter already, or a target is none (`find_targets`).
    """
    _refuse_second(model)
    layers = find_targets(model, config.target_modules)
    return _inject(model, config, layers, find_expert_targets(model, config.target_parameters), seed, dtype)


def inject_as_saved(model: PreTrainedModel, config: LoraConfig, dtype: torch.dtype | None = None) -> list[nn.Parameter]:
    """Put adapters into exactly the named layers and parameters, those of an adapter that was saved.

    Raises:
        UnsupportedAdapter: the model has an adapter already, or no such linear layer or parameter.
    """
    _refuse_second(model)
    assert config.target_modules != ALL_LINEAR
    assert config.target_parameters != ALL_EXPERTS
    known, wanted = linear_layers(model), set(config.target_modules)
    if missing := sorted(wanted.difference(known)):
        raise UnsupportedAdapter(f"The adapter is not for this model, which has no linear layer {missing[0]}.")
    experts = find_expert_targets(model, config.target_parameters)
    return _inject(model, config, [name for name in known if name in wanted], experts, seed=0, dtype=dtype)


def _refuse_second(model: PreTrainedModel) -> None:
    if any(True for _ in adapters(model)):
        raise UnsupportedAdapter("The model already carries an adapter.")


def _inject(
    model: PreTrainedModel,
    config: LoraConfig,
    layers: Sequence[str],
    experts: Mapping[str, Sequence[str]],
    seed: int,
    dtype: torch.dtype | None,
) -> list[nn.Parameter]:
    model.requires_grad_(False)
    if (head := reward_head_of(model)) is not None:
        head[1].requires_grad_(True)
    generator = torch.Generator().manual_seed(seed)
    for name in layers:
        layer = LoraLinear(model.get_submodule(name), rank=config.rank, scaling=config.scaling, dropout=config.dropout)
        model.set_submodule(name, layer)
        layer.train(model.training)
    for name, parameters in experts.items():
        stack = LoraExperts(model.get_submodule(name), parameters, rank=config.rank, scaling=config.scaling)
        model.set_submodule(name, stack)
        stack.train(model.training)
    placed = [adapter for _, adapter in adapters(model)]
    for adapter in sorted(placed, key=lambda adapter: isinstance(adapter, ExpertAdapter)):  # experts draw last
        for parameter in (adapter.lora_A, adapter.lora_B):
            parameter.data = parameter.data.to(dtype or parameter.dtype)
        bound = 1 / math.sqrt(adapter.lora_A.shape[1])  # kaiming_uniform with a = sqrt(5), as the paper's code draws A
        values = torch.empty(adapter.lora_A.shape).uniform_(-bound, bound, generator=generator)
        with torch.no_grad():
            adapter.lora_A.copy_(values)
    _group_siblings(model)
    return [parameter for _, adapter in adapters(model) for parameter in (adapter.lora_A, adapter.lora_B)]


def adapters(model: nn.Module) -> Iterator[tuple[str, LoraLinear | ExpertAdapter]]:
    """Return adapters with the names of their modules, in the model's order."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, LoraLinear | ExpertAdapter))


def wrappers(model: nn.Module) -> dict[str, Wrapper]:
    """Return adapted modules by their names in the plain model, in its order."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLinear | LoraExperts)}


def adapter_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the adapter's tensors, whole and detached, as peft names them; of a sharded model all ranks call it.

    A layer has `<layer>.lora_A.weight` [r, I] and `<layer>.lora_B.weight` [O, r]. Experts have [E r, I] and [O, r E]
    under the same names for the last of their adapted parameters, and with `.base_layer` behind the experts' name for
    the one before it: peft puts one wrapper around the other. The head of a reward model has its own names.
    """
    state = {}
    if (head := reward_head_of(model)) is not None:
        found = head[1].named_parameters()
        state = {f"{head[0]}.{leaf}": whole_tensor(model, parameter.detach()) for leaf, parameter in found}
    for name, wrapper in wrappers(model).items():
        held: list[LoraLinear | ExpertAdapter]
        held = [wrapper] if isinstance(wrapper, LoraLinear) else [*wrapper.by_parameter.values()]
        for depth, adapter in enumerate(reversed(held)):
            key = name + ".base_layer" * depth
            state[f"{key}.lora_A.weight"] = whole_tensor(model, adapter.lora_A.detach())
            state[f"{key}.lora_B.weight"] = whole_tensor(model, adapter.lora_B.detach())
    return state


def load_adapter_state(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Copy tensors named as `adapter_state` names them into the adapter.

    Raises:
        UnsupportedAdapter: names or shapes are not exactly those of the adapter.
    """
    own = adapter_state(model)
    if own.keys() != state.keys():
        raise UnsupportedAdapter("The adapter is not for this model: it adapts other layers.")
    for name, tensor in own.items():
        if tensor.shape != state[name].shape:
            raise UnsupportedAdapter(f"The adapter is not for this model: {name} has another shape.")
        tensor.copy_(state[name])


def merge(model: PreTrainedModel) -> None:
    """Add the adapter to the weights for good and remove it; all parameters are trainable again."""
    for name, wrapper in wrappers(model).items():
        for parameter, update in wrapper.updates.items():
            weight = wrapper.base.get_parameter(parameter)
            with torch.no_grad():
                weight.copy_(weight.float() + update().to(weight.device))
        model.set_submodule(name, wrapper.base)
    model.requires_grad_(True)


def _group_siblings(model: nn.Module) -> None:
    for parent, names in itertools.product(list(model.modules()), _SAME_INPUT):
        layers = [layer for name in names if isinstance(layer := getattr(parent, name, None), LoraLinear)]
        if len(layers) < 2:
            continue
        group = LoraGroup(layers)
        for layer in layers:
            layer.join(group)
