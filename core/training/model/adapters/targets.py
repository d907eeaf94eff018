"""Selection of the layers that low-rank adapters are put on, and the share of weights that they reach.

A target is a plain linear layer that a row of text passes through. Towers for images, layers whose code does
something else with the weight, and routers of mixtures of experts are none. Experts that are parameters of three
dimensions are targets of their own (peft's `target_parameters`).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from core.domain.errors import InvalidRequest
from core.training.kernels.lora_experts import LoraExperts, computes_alike, expert_parameters, is_expert_stack
from core.training.kernels.lora_linear import LoraLinear
from core.training.model.capabilities import reward_head_of, stock_attention

ALL_LINEAR: Literal["all-linear"] = "all-linear"
ALL_EXPERTS: Literal["all-experts"] = "all-experts"
_NUM_TOKENS = 8
_TOLERANCE = 0.02
"""Relative, of a product in 16 bits beside the same in another order."""
_FLOAT32_TOLERANCE = 1e-4
_ROUTER_NAMES = ("router", "gate")
_EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


class UnsupportedAdapter(InvalidRequest):
    code = "unsupported-adapter"
    title = "This LoRA configuration is not supported"


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """How much of a model adapters can reach. Embeddings, LM head, norms and biases are not counted."""

    share: float
    """Weights of the adapted layers over all."""
    left_out: tuple[str, ...]
    """Parameters that no adapter is on, numbers of layers as `*`; the largest first."""


def find_targets(model: PreTrainedModel, target_modules: Literal["all-linear"] | Sequence[str]) -> list[str]:
    """Return names of the layers to adapt, in the model's order.

    Raises:
        UnsupportedAdapter: a target matches no layer that can be adapted, or is the LM head.
    """
    linear = _adaptable(model)
    if not linear:
        raise UnsupportedAdapter("The base model has no linear layer that an adapter fits on.")
    if target_modules == ALL_LINEAR:
        return linear
    head = _head_of(model)
    head_names = [name for name, module in model.named_modules() if module is head]
    for target in target_modules:
        if any(_matches(name, target) for name in head_names):
            which = "LM head, which is never adapted here"
            if reward_head_of(model) is not None:
                which = "head of the reward model, which is trained whole beside the adapter"
            raise UnsupportedAdapter(f'"{target}" is the {which}; leave it out of target_modules.')
        if not any(_matches(name, target) for name in linear):
            leaves = sorted({name.rsplit(".", 1)[-1] for name in linear})
            raise UnsupportedAdapter(
                f'No linear layer of the base model is named "{target}", or text does not pass through it as a plain '
                f"product (routers, image towers). There are: {', '.join(leaves)}."
            )
    return [name for name in linear if any(_matches(name, target) for target in target_modules)]


def find_expert_targets(
    model: PreTrainedModel, target_parameters: Literal["all-experts"] | Sequence[str]
) -> dict[str, list[str]]:
    """Return names of the parameters to adapt, by the module of experts that holds them, in the model's order.

    Raises:
        UnsupportedAdapter: a target matches no parameter that can be adapted, or there are no experts of that kind.
    """
    if not target_parameters:
        return {}
    known = _expert_stacks(model)
    if not known:
        raise UnsupportedAdapter(
            "target_parameters names experts, and this base model has none in parameters of three dimensions that an "
            "adapter fits on. Leave target_parameters out; target_modules reaches its linear layers."
        )
    if target_parameters == ALL_EXPERTS:
        return known
    full = [f"{module}.{name}" for module, names in known.items() for name in names]
    for target in target_parameters:
        if not any(_matches(name, target) for name in full):
            leaves = sorted({name.rsplit(".", 1)[-1] for name in full})
            raise UnsupportedAdapter(
                f'No parameter of the base model\'s experts is named "{target}". There are: {", ".join(leaves)}.'
            )
    chosen = {
        module: [name for name in names if any(_matches(f"{module}.{name}", target) for target in target_parameters)]
        for module, names in known.items()
    }
    return {module: names for module, names in chosen.items() if names}


def has_expert_targets(model: PreTrainedModel) -> bool:
    """Return whether the model has experts that an adapter fits on and that carry none."""
    return any(is_expert_stack(module) for name, module in model.named_modules() if not name.endswith(".base"))


def linear_layers(model: PreTrainedModel) -> list[str]:
    """Return names of all layers of a linear type but the head, in the model's order."""
    head = _head_of(model)
    return [
        name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D) and module is not head
    ]


def _head_of(model: PreTrainedModel) -> nn.Module | None:
    """Return the LM head, or the head of a reward model."""
    found = reward_head_of(model)
    head: nn.Module | None = model.get_output_embeddings() if found is None else found[1]
    return head


def coverage(model: PreTrainedModel) -> Coverage:
    """Measure how much of an adapted model its adapters reach."""
    tables = {id(module.weight) for module in (model.get_input_embeddings(), model.get_output_embeddings()) if module}
    adapted = {
        f"{name}.base.{parameter}"
        for name, module in model.named_modules()
        if isinstance(module, LoraLinear | LoraExperts)
        for parameter in module.updates
    }
    reached, left_out = 0, dict[str, int]()
    for name, parameter in model.named_parameters():
        if id(parameter) in tables or parameter.dim() < 2 or parameter.requires_grad:
            continue
        if name in adapted:
            reached += parameter.numel()
        else:
            generic = _generic(name.replace(".base.", "."))
            left_out[generic] = left_out.get(generic, 0) + parameter.numel()
    names = sorted(left_out, key=lambda name: (-left_out[name], name))
    return Coverage(share=reached / max(1, reached + sum(left_out.values())), left_out=tuple(names))


def num_experts(model: PreTrainedModel) -> int | None:
    """Number of experts of a layer; None where the model is no mixture."""
    config = model.config.get_text_config()
    counts = [getattr(config, name, None) for name in _EXPERT_COUNTS]
    return next((count for count in counts if isinstance(count, int) and count > 1), None)


def _adaptable(model: PreTrainedModel) -> list[str]:
    """Return the plain linear layers that a row of text passes through, without routers.

    An expert that no token of the row was sent to counts as passed through when one of the same place was.
    """
    names = linear_layers(model)
    experts = num_experts(model)
    place = _generic if experts is not None else str
    passed = {place(name) for name in _passed_through(model, names)}
    return [
        name
        for name in names
        if place(name) in passed
        and not _is_router(name, model.get_submodule(name), experts)
        and _is_plain(model.get_submodule(name))
    ]


def _expert_stacks(model: PreTrainedModel) -> dict[str, list[str]]:
    """Return parameters that take adapters, by module: experts of a known kind that a row of text passes through."""
    stacks = {name: module for name, module in model.named_modules() if is_expert_stack(module)}
    passed = {_generic(name) for name in _passed_through(model, list(stacks))}
    tolerance = _TOLERANCE if model.dtype.itemsize < 4 else _FLOAT32_TOLERANCE
    return {
        name: expert_parameters(module)
        for name, module in stacks.items()
        if _generic(name) in passed and computes_alike(module, tolerance)
    }


def _passed_through(model: PreTrainedModel, names: Sequence[str]) -> set[str]:
    """Return those modules on whose output the logits of a row of text depend, with a gradient."""
    places: list[str] = []
    outputs: list[Tensor] = []

    def note(name: str, module: nn.Module, args: object, output: object) -> None:
        if isinstance(output, Tensor) and output.requires_grad:
            places.append(name)
            outputs.append(output)

    handles = [model.get_submodule(name).register_forward_hook(partial(note, name)) for name in names]
    vocabulary = int(model.get_input_embeddings().num_embeddings)
    ids = torch.randint(0, vocabulary, (1, _NUM_TOKENS), generator=torch.Generator().manual_seed(0))
    try:
        with torch.enable_grad(), stock_attention(model):
            value = model(input_ids=ids.to(model.device), use_cache=False).logits.float().logsumexp(-1).sum()
    finally:
        for handle in handles:
            handle.remove()
    gradients = torch.autograd.grad(value, outputs, allow_unused=True) if outputs else ()
    return {place for place, gradient in zip(places, gradients, strict=True) if gradient is not None}


@torch.no_grad()
def _is_plain(module: Any) -> bool:
    """Whether the layer computes x W^T + b; a subclass may do something else with its weight."""
    if type(module) in (nn.Linear, Conv1D):
        return True
    weight = module.weight
    x = torch.randn(3, weight.shape[1], generator=torch.Generator().manual_seed(0)).to(weight)
    try:
        found = module(x)
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError):
        return False
    expected = nn.functional.linear(x, weight, module.bias)
    if not isinstance(found, Tensor) or found.shape != expected.shape:
        return False
    return bool((found - expected).float().norm() <= _TOLERANCE * expected.float().norm())


def _is_router(name: str, module: Any, experts: int | None) -> bool:
    """Whether the layer gives one number for each expert of a mixture."""
    if experts is None or module.weight.shape[0] != experts:
        return False
    return any(part in _ROUTER_NAMES for part in name.split("."))


def _generic(name: str) -> str:
    return re.sub(r"(?<=\.)\d+(?=\.|$)", "*", name)


def _matches(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")
