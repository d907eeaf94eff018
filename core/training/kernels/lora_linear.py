"""Linear layers with low-rank adapters (LoRA, arXiv:2106.09685): y = x W^T + b + (alpha / r) (x A^T) B^T.

Layers that a model applies to the same input one after another (query, key and value; gate and up) form a group: the
first one called computes all of them, with one product for their stacked A matrices, because a product with 16
columns costs far more than its arithmetic. No product is as large as the weight's gradient, which a frozen weight
does not need.

Legend: r rank, I input features, O output features, T tokens, n layers of a group.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from transformers.pytorch_utils import Conv1D


class LoraLinear(nn.Module):
    """A frozen `nn.Linear` or `Conv1D` with an adapter; it replaces the layer under the same name."""

    def __init__(self, base: nn.Linear | Conv1D, *, rank: int, scaling: float, dropout: float) -> None:
        super().__init__()
        self.base = base
        self.is_transposed = isinstance(base, Conv1D)
        """Conv1D (GPT-2) keeps its weight as [I, O]."""
        self.scaling = scaling
        self.adapter_dropout = dropout
        outputs, inputs = self.matrix.shape
        self.lora_A = nn.Parameter(base.weight.new_zeros(rank, inputs))
        """[r, I]"""
        self.lora_B = nn.Parameter(base.weight.new_zeros(outputs, rank))
        """[O, r]"""
        self._group = LoraGroup([self])

    @property
    def weight(self) -> Tensor:
        """The frozen weight, for models that read a layer's type from it."""
        weight: Tensor = self.base.weight
        return weight

    @property
    def matrix(self) -> Tensor:
        """The frozen weight as [O, I]."""
        return self.weight.t() if self.is_transposed else self.weight

    @property
    def bias(self) -> Tensor | None:
        """The frozen bias, for models that read it from a linear layer."""
        bias: Tensor | None = self.base.bias
        return bias

    @property
    def in_features(self) -> int:
        return int(self.matrix.shape[1])

    @property
    def out_features(self) -> int:
        return int(self.matrix.shape[0])

    @property
    def updates(self) -> Mapping[str, Callable[[], Tensor]]:
        """What gives the float32 update of each adapted parameter of `base`, by its name there."""
        return {"weight": self.delta}

    def join(self, group: "LoraGroup") -> None:
        self._group = group

    def forward(self, x: Tensor) -> Tensor:
        if self.adapter_dropout and self.training:
            dropped = functional.dropout(x, self.adapter_dropout)
            update = functional.linear(functional.linear(dropped, self.lora_A), self.lora_B)
            plain: Tensor = self.base(x)
            return torch.add(plain, update, alpha=self.scaling)
        return self._group.output(self, x)

    def delta(self) -> Tensor:
        """Return the float32 update of the weight in its orientation, computed on the host: equal bits everywhere."""
        delta = self.scaling * (self.lora_B.detach().cpu().float() @ self.lora_A.detach().cpu().float())
        return delta.t() if self.is_transposed else delta


def draws_dropout(model: nn.Module) -> bool:
    """Whether an adapter of the model draws dropout now."""
    layers = (module for module in model.modules() if isinstance(module, LoraLinear))
    return any(layer.adapter_dropout > 0 and layer.training for layer in layers)


class LoraGroup(threading.local):
    """Adapted layers of equal input size that are expected to be applied to the same tensor, by the same thread."""

    def __init__(self, layers: Sequence[LoraLinear]) -> None:
        self._layers = layers
        self._input: Tensor | None = None
        self._version = 0
        self._waiting: dict[LoraLinear, Tensor] = {}

    def output(self, layer: LoraLinear, x: Tensor) -> Tensor:
        """Return the layer's output; those of the others are kept until requested with the same tensor object."""
        if x is self._input and x._version == self._version and layer in self._waiting:
            output = self._waiting.pop(layer)
        else:
            outputs = self._compute(x)
            self._waiting = dict(zip(self._layers, outputs, strict=True))
            self._input, self._version = x, x._version
            output = self._waiting.pop(layer)
        if not self._waiting:
            self._input = None
        return output

    def _compute(self, x: Tensor) -> tuple[Tensor, ...]:
        layers = self._layers
        frozen = tuple((layer.matrix.detach(), layer.base.bias) for layer in layers)
        adapter = [layer.lora_A for layer in layers] + [layer.lora_B for layer in layers]
        outputs: tuple[Tensor, ...] = _LoraFunction.apply(x, layers[0].scaling, frozen, *adapter)  # type: ignore[no-untyped-call]
        return outputs


class _LoraFunction(torch.autograd.Function):
    """Computes all outputs of a group; gradients for x, the A and the B matrices only."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scaling: float, frozen: Sequence[tuple[Tensor, Tensor | None]], *adapter: Tensor
    ) -> tuple[Tensor, ...]:
        """Take x [..., I], n weights [O, I] and biases [O], n A and n B matrices; return n outputs [..., O]."""
        num_layers = len(frozen)
        downs, ups = adapter[:num_layers], adapter[num_layers:]
        rows = x.reshape(-1, x.shape[-1])
        stacked = torch.cat(downs)
        low = torch.mm(rows, stacked.t())
        outputs = []
        for (weight, bias), up, part in zip(frozen, ups, low.chunk(num_layers, dim=1), strict=True):
            # In the final shape from the start: a view that leaves the function could not be changed in place.
            output = x.new_empty(*x.shape[:-1], weight.shape[0])
            flat = output.view(rows.shape[0], -1)
            if bias is None:
                torch.mm(rows, weight.t(), out=flat)
            else:
                torch.addmm(bias, rows, weight.t(), out=flat)
            flat.addmm_(part, up.t(), alpha=scaling)
            outputs.append(output)
        ctx.scaling = scaling
        ctx.save_for_backward(rows, stacked, low, *(weight for weight, _ in frozen), *ups)
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        rows, stacked, low, *matrices = ctx.saved_tensors
        num_layers = len(grad_outputs)
        weights, ups = matrices[:num_layers], matrices[num_layers:]
        grads = [grad.reshape(-1, grad.shape[-1]) for grad in grad_outputs]
        grad_low = torch.empty_like(low)
        grad_ups = []
        for grad, up, low_part, grad_part in zip(
            grads, ups, low.chunk(num_layers, dim=1), grad_low.chunk(num_layers, dim=1), strict=True
        ):
            grad_part.copy_(torch.mm(grad, up)).mul_(ctx.scaling)
            grad_ups.append(torch.mm(grad.t(), low_part).mul_(ctx.scaling))
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = torch.mm(grad_low, stacked)
            for grad, weight in zip(grads, weights, strict=True):
                grad_x.addmm_(grad, weight)
            grad_x = grad_x.view(*grad_outputs[0].shape[:-1], -1)
        grad_downs = torch.mm(grad_low.t(), rows).chunk(num_layers)
        return grad_x, None, None, *grad_downs, *grad_ups
