"""RMSNorm (arXiv:1910.07467) with a backward pass of its own, for CPUs.

y = w * x / sqrt(mean(x²) + eps), where models of 16 bits compute in float32 and round before the product with w. What
autograd makes of the models' code keeps three copies of x, two of them in float32; here the input is enough, which
other parts of the step hold anyway.

Legend: T tokens, H features.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import PreTrainedModel

from core.training.kernels.replacement import agree, replace_modules

_EPSILON_NAMES = ("variance_epsilon", "eps")


class LeanRMSNorm(nn.Module):
    """Takes the place of a model's own RMSNorm, under the same name and with the same weight."""

    def __init__(self, weight: nn.Parameter, epsilon: float) -> None:
        super().__init__()
        self.weight = weight
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = _RMSNorm.apply(x, self.weight, self.epsilon)  # type: ignore[no-untyped-call]
        return output


@torch.no_grad()
def replace_norms(model: PreTrainedModel, dtype: torch.dtype | None = None, device: torch.device | None = None) -> int:
    """Put `LeanRMSNorm` where a module provably computes the same bits; return how many were replaced.

    Args:
        dtype: that the model will compute in; None: that of its weights.
        device: that it will compute on; None: where it is. Other ones than a CPU have fused kernels.
    """

    def stand_in(module: nn.Module) -> nn.Module | None:
        lean = _lean(module) if type(module).__name__.endswith("RMSNorm") else None
        return lean if lean is not None and _agree(module, lean, dtype or lean.weight.dtype) else None

    return replace_modules(model, device, stand_in)


def _lean(norm: nn.Module) -> LeanRMSNorm | None:
    weight = getattr(norm, "weight", None)
    epsilons = [getattr(norm, name) for name in _EPSILON_NAMES if isinstance(getattr(norm, name, None), float)]
    if (
        not isinstance(weight, nn.Parameter)
        or weight.dim() != 1
        or len(epsilons) != 1
        or len(list(norm.parameters())) != 1
    ):
        return None
    return LeanRMSNorm(weight, epsilons[0])


def _agree(norm: nn.Module, lean: LeanRMSNorm, dtype: torch.dtype) -> bool:
    """Whether both compute the same bits, with a random weight; some rows are small enough for epsilon to count."""
    size = len(lean.weight)
    weight = torch.randn(size, generator=torch.Generator().manual_seed(1)).to(dtype)
    return agree(norm, lean, size, {"weight": weight}, dtype)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        """Normalise hidden states [..., H]; the result has the same shape."""
        wide = x.float()
        scales = wide.pow(2).mean(-1, keepdim=True).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, scales, weight)
        return weight * (wide * scales).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """Return dx = s (w dy - n mean(w dy n)) and dw = sum over tokens of n dy, where n = s x; in float32."""
        x, scales, weight = ctx.saved_tensors
        size = x.shape[-1]
        scales, grads = scales.view(-1, 1), grad_output.reshape(-1, size)
        normed = x.reshape(-1, size) * scales
        products = grads * normed
        grad_weight = products.sum(0).to(weight.dtype) if ctx.needs_input_grad[1] else None
        if not ctx.needs_input_grad[0]:
            return None, grad_weight, None
        wide_weight = weight.float()
        means = torch.mv(products, wide_weight).div_(size)[:, None]
        torch.mul(grads, wide_weight, out=products)
        grad_x = products.sub_(normed.mul_(means)).mul_(scales).to(x.dtype)
        return grad_x.view_as(x), grad_weight, None
