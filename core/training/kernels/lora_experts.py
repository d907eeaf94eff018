"""Experts of a mixture with low-rank adapters: every product with an expert's weight gets (alpha / r) (x A^T) B^T.

transformers keeps the experts of a layer in parameters of three dimensions. Each expert has its A and B, which lie
stacked as peft's `target_parameters` lay them. A weight is never added to its update while training: the sum would be
as large as all experts, and in 16 bits it would round small updates away.

Legend: r rank, E experts, I input features, O output features, S pairs of a token and an expert it is sent to.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_INTERFACE = ("has_gate", "has_bias", "has_post_expert_norm", "is_transposed", "num_experts", "_apply_gate")
"""What transformers' `use_experts_implementation` gives the modules that any forward function of experts fits."""


class ExpertAdapter(nn.Module):
    """A and B of every expert for one parameter of three dimensions."""

    def __init__(self, weight: Tensor, *, rank: int, scaling: float, is_transposed: bool) -> None:
        super().__init__()
        self.scaling = scaling
        self.is_transposed = is_transposed
        """The weight is [E, I, O] and not [E, O, I]."""
        self.num_experts = weight.shape[0]
        inputs, outputs = weight.shape[1:] if is_transposed else reversed(weight.shape[1:])
        self.lora_A = nn.Parameter(weight.new_zeros(self.num_experts * rank, inputs))
        """[E r, I], expert by expert."""
        self.lora_B = nn.Parameter(weight.new_zeros(outputs, rank * self.num_experts))
        """[O, r E]: all experts' first columns, then all their second ones, …"""

    def by_expert(self) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Return A [r, I] and B [O, r] of each expert."""
        rank = self.lora_A.shape[0] // self.num_experts
        downs = self.lora_A.view(self.num_experts, rank, -1)
        ups = self.lora_B.view(-1, rank, self.num_experts).permute(2, 0, 1)
        return downs.unbind(), ups.unbind()

    def delta(self) -> Tensor:
        """Form the float32 update of the parameter, in its own orientation; on the host: equal bits everywhere."""
        downs, ups = (torch.stack([*parts]).detach().cpu().float() for parts in self.by_expert())
        delta = self.scaling * (ups @ downs)
        return delta.transpose(1, 2).contiguous() if self.is_transposed else delta


class LoraExperts(nn.Module):
    """Frozen experts with adapters on some of their parameters; takes their place in the model under the same name.

    Computes what transformers' own forward functions of experts compute: `base` must have their interface.
    """

    def __init__(self, base: nn.Module, parameters: Collection[str], *, rank: int, scaling: float) -> None:
        super().__init__()
        self.base: Any = base
        is_transposed = bool(self.base.is_transposed)
        weights = {name: weight for name, weight in base.named_parameters(recurse=False) if name in parameters}
        self.adapters = nn.ModuleDict(
            {
                name: ExpertAdapter(weight, rank=rank, scaling=scaling, is_transposed=is_transposed)
                for name, weight in weights.items()
            }
        )

    @property
    def by_parameter(self) -> dict[str, ExpertAdapter]:
        """Adapters by the parameter of `base` that they are on, in its order."""
        return {name: adapter for name, adapter in self.adapters.items() if isinstance(adapter, ExpertAdapter)}

    @property
    def updates(self) -> Mapping[str, Callable[[], Tensor]]:
        """What gives the float32 update of each adapted parameter of `base`, by its name there."""
        return {name: adapter.delta for name, adapter in self.by_parameter.items()}

    def forward(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """Compute [T, I] of hidden_states [T, I], the experts of each token and their weights [T, k]."""
        base = self.base
        num_tokens, num_choices = top_k_index.shape
        experts, order = top_k_index.reshape(-1).sort(stable=True)
        counts = torch.bincount(experts, minlength=base.num_experts).tolist()
        values = hidden_states[order // num_choices]
        if base.has_gate:
            values = base._apply_gate(self._product("gate_up_proj", values, experts, counts))
        else:
            values = base.act_fn(self._product("up_proj", values, experts, counts))
        values = self._product("down_proj", values, experts, counts)
        if base.has_post_expert_norm:
            values = base.post_expert_norm(values)
        weighted = values * top_k_weights.reshape(-1)[order, None]
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order), device=order.device)
        return weighted[back].view(num_tokens, num_choices, -1).sum(1).to(hidden_states.dtype)

    def _product(self, name: str, values: Tensor, experts: Tensor, counts: list[int]) -> Tensor:
        """Compute [S, O] of values [S, I], which lie expert by expert."""
        weights = getattr(self.base, name).unbind()
        if self.base.is_transposed:
            weights = [weight.t() for weight in weights]
        adapter = self.by_parameter.get(name)
        downs, ups = adapter.by_expert() if adapter is not None else ((), ())
        parts = []
        for expert, part in enumerate(torch.split(values, counts)):
            if not len(part):
                continue
            product = functional.linear(part, weights[expert])
            if adapter is not None:
                update = functional.linear(functional.linear(part, downs[expert]), ups[expert])
                product = torch.add(product, update, alpha=adapter.scaling)
            parts.append(product)
        outputs = torch.cat(parts)
        return outputs + getattr(self.base, f"{name}_bias")[experts] if self.base.has_bias else outputs


def is_expert_stack(module: nn.Module) -> bool:
    """Return whether a module holds experts in the way that `LoraExperts` computes with."""
    return all(hasattr(module, name) for name in _INTERFACE) and bool(expert_parameters(module))


def expert_parameters(module: nn.Module) -> list[str]:
    """Return names of the parameters of a stack of experts that take adapters."""
    named = ("gate_up_proj", "up_proj", "down_proj")
    return [name for name, weight in module.named_parameters(recurse=False) if name in named and weight.dim() == 3]


@torch.no_grad()
def computes_alike(experts: Any, tolerance: float) -> bool:
    """Return whether experts give on random values what `LoraExperts` gives, relative to the values' size."""
    weight = experts.down_proj
    size = weight.shape[2] if experts.is_transposed else weight.shape[1]
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(6, size, generator=generator).to(weight)
    choices = torch.stack([torch.randperm(experts.num_experts, generator=generator)[:2] for _ in range(6)])
    shares = torch.rand(choices.shape, generator=generator).to(weight)
    choices = choices.to(weight.device)
    try:
        found = LoraExperts(experts, (), rank=1, scaling=1.0)(values, choices, shares)
        expected = experts(values, choices, shares)
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError, KeyError):
        return False
    if not isinstance(expected, Tensor) or found.shape != expected.shape:
        return False
    return bool((found - expected).float().norm() <= tolerance * expected.float().norm().clamp_min(1e-30))
