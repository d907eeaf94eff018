"""Low-rank adapters in a model: insertion, extraction as tensors, and merging into the weights.

Legend: r rank, I input features, O output features.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from core.training.kernels.lora_linear import LoraGroup, LoraLinear
from core.training.model.targets import ALL_LINEAR, UnsupportedAdapter, find_targets, linear_layers

_SAME_INPUT = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Layers of one parent that models apply to one tensor. Where one does not, the results are right but cost more."""


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Settings of one adapter."""

    rank: int
    alpha: float
    dropout: float = 0.0
    target_modules: Literal["all-linear"] | Sequence[str] = ALL_LINEAR

    @property
    def scaling(self) -> float:
        return self.alpha / self.rank


def inject(model: PreTrainedModel, config: LoraConfig, seed: int) -> list[nn.Parameter]:
    """Freeze the model and put adapters into its linear layers; the outputs stay as they were (B = 0).

    A is drawn on the CPU from `seed`, so that every machine starts with the same adapter.

    Returns:
        The adapter's parameters, in a stable order: those to train.

    Raises:
        UnsupportedAdapter: the model has an adapter already, or a target is none (`find_targets`).
    """
    _refuse_second(model)
    return _inject(model, config, find_targets(model, config.target_modules), seed)


def inject_as_saved(model: PreTrainedModel, config: LoraConfig, layers: Sequence[str]) -> list[nn.Parameter]:
    """Put adapters into exactly the named layers, those of an adapter that was saved.

    Raises:
        UnsupportedAdapter: the model has an adapter already, or no such linear layer.
    """
    _refuse_second(model)
    known = linear_layers(model)
    if missing := sorted(set(layers).difference(known)):
        raise UnsupportedAdapter(f"The adapter is not for this model, which has no linear layer {missing[0]}.")
    wanted = set(layers)
    return _inject(model, config, [name for name in known if name in wanted], seed=0)


def _refuse_second(model: PreTrainedModel) -> None:
    if any(True for _ in adapters(model)):
        raise UnsupportedAdapter("The model already carries an adapter.")


def _inject(model: PreTrainedModel, config: LoraConfig, targets: Sequence[str], seed: int) -> list[nn.Parameter]:
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name in targets:
        layer = LoraLinear(model.get_submodule(name), rank=config.rank, scaling=config.scaling, dropout=config.dropout)
        bound = 1 / math.sqrt(layer.lora_A.shape[1])  # kaiming_uniform with a = sqrt(5), as the paper's code draws A
        values = torch.empty(layer.lora_A.shape).uniform_(-bound, bound, generator=generator)
        with torch.no_grad():
            layer.lora_A.copy_(values)
        model.set_submodule(name, layer)
        layer.train(model.training)
    _group_siblings(model)
    return [parameter for _, layer in adapters(model) for parameter in (layer.lora_A, layer.lora_B)]


def adapters(model: nn.Module) -> Iterator[tuple[str, LoraLinear]]:
    """Return adapted layers with their names, in the model's order."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, LoraLinear))


def adapter_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the adapter's tensors, detached: `<layer>.lora_A.weight` [r, I] and `<layer>.lora_B.weight` [O, r]."""
    state = {}
    for name, layer in adapters(model):
        state[f"{name}.lora_A.weight"] = layer.lora_A.detach()
        state[f"{name}.lora_B.weight"] = layer.lora_B.detach()
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
    for name, layer in list(adapters(model)):
        with torch.no_grad():
            layer.base.weight.copy_(layer.base.weight.float() + layer.delta().to(layer.base.weight.device))
        model.set_submodule(name, layer.base)
    model.requires_grad_(True)


def _group_siblings(model: nn.Module) -> None:
    for parent, names in itertools.product(list(model.modules()), _SAME_INPUT):
        layers = [layer for name in names if isinstance(layer := getattr(parent, name, None), LoraLinear)]
        if len(layers) < 2:
            continue
        group = LoraGroup(layers)
        for layer in layers:
            layer.join(group)
