"""Gated MLP (arXiv:2002.05202, with SiLU) with a backward pass of its own, for CPUs.

y = (silu(g) * u) W^T. What autograd makes of the models' code keeps g, silu(g), u and their product; here g and u are
enough, and the other two are computed again.

Legend: T tokens, I intermediate features, H features.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.activations import SiLUActivation

from core.training.kernels.replacement import agree, replace_modules

_NAMES = {"gate_proj", "up_proj", "down_proj", "act_fn"}
_SILUS = (nn.SiLU, SiLUActivation)


class LeanGatedMLP(nn.Module):
    """Takes the place of a model's own gated MLP, under the same name and with the same layers."""

    gate_proj: Any
    up_proj: Any
    down_proj: Any
    """`nn.Linear`, or what stands in for it."""
    act_fn: Any

    def __init__(self, mlp: nn.Module) -> None:
        super().__init__()
        for name, layer in mlp.named_children():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        gate, up, down = self.gate_proj(x), self.up_proj(x), self.down_proj
        if type(down) is not nn.Linear or down.bias is not None or down._forward_hooks:  # such as an adapter
            output: Tensor = down(self.act_fn(gate) * up)
        else:
            output = _GatedDown.apply(gate, up, down.weight)
        return output


@torch.no_grad()
def replace_gated_mlps(
    model: PreTrainedModel, dtype: torch.dtype | None = None, device: torch.device | None = None
) -> int:
    """Put `LeanGatedMLP` where a module provably computes the same bits; return how many were replaced.

    Args:
        dtype: that the model will compute in; None: that of its weights.
        device: that it will compute on; None: where it is. Other ones than a CPU have fused kernels.
    """

    def stand_in(module: nn.Module) -> nn.Module | None:
        lean = _lean(module)
        return lean if lean is not None and _agree(module, lean, dtype or lean.gate_proj.weight.dtype) else None

    return replace_modules(model, device, stand_in)


def _lean(mlp: nn.Module) -> LeanGatedMLP | None:
    layers = dict(mlp.named_children())
    if layers.keys() != _NAMES or type(layers.pop("act_fn")) not in _SILUS:
        return None
    if any(type(layer) is not nn.Linear for layer in layers.values()) or [*mlp.parameters(recurse=False)]:
        return None
    return LeanGatedMLP(mlp).train(mlp.training)


def _agree(mlp: nn.Module, lean: LeanGatedMLP, dtype: torch.dtype) -> bool:
    """Whether both compute the same bits with the module's own weights."""
    values = {name: parameter.to(dtype) for name, parameter in mlp.named_parameters()}
    return agree(mlp, lean, lean.gate_proj.weight.shape[1], values, dtype)


class _GatedDown(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, weight: Tensor) -> Tensor:
        """Gate [..., I] with SiLU and multiply with the weight [H, I]; the result is [..., H]."""
        ctx.save_for_backward(gate, up, weight)
        return functional.linear(functional.silu(gate).mul_(up), weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        gate, up, weight = ctx.saved_tensors
        grads = grad_output.reshape(-1, grad_output.shape[-1])
        activated = functional.silu(gate)
        grad_weight = None
        if ctx.needs_input_grad[2]:
            grad_weight = torch.mm(grads.t(), (activated * up).view(-1, weight.shape[1]))
        if not any(ctx.needs_input_grad[:2]):
            return None, None, grad_weight
        grad_product = torch.mm(grads, weight).view_as(gate)
        grad_up = activated.mul_(grad_product)
        grad_gate = torch.ops.aten.silu_backward(grad_product.mul_(up), gate)
        return grad_gate, grad_up, grad_weight
