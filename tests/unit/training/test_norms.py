"""RMSNorm with a backward pass of its own: the model's own numbers, and gradients no worse than autograd's."""

import pytest
import torch
from packed_rows import make_stock_model
from torch import Tensor, nn
from torch.nn import functional

from core.training.kernels.rms_norm import LeanRMSNorm, replace_norms

LAYERS, SIZE = 2, 32


@pytest.mark.parametrize(
    ("architecture", "count"),
    [("llama", 2 * LAYERS + 1), ("qwen2", 2 * LAYERS + 1), ("mistral", 2 * LAYERS + 1), ("gemma", 0), ("gpt2", 0)],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_stands_in_where_a_model_computes_the_same(architecture: str, count: int, dtype: torch.dtype) -> None:
    """Gemma multiplies with 1 + w, and GPT-2 has no RMSNorm."""
    model = make_stock_model(architecture).eval().to(dtype)
    ids = torch.arange(12)[None]
    before, names = model(input_ids=ids).logits, list(model.state_dict())
    assert replace_norms(model) == count
    assert torch.equal(model(input_ids=ids).logits, before)
    assert list(model.state_dict()) == names


def gradients(function: nn.Module, x: Tensor, upstream: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(function(x), (x, *function.parameters()), upstream)


class Stock(nn.Module):
    def __init__(self, weight: Tensor, epsilon: float) -> None:
        super().__init__()
        self.weight, self.epsilon = nn.Parameter(weight), epsilon

    def forward(self, x: Tensor) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        scaled = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.epsilon)
        return self.weight * scaled.to(x.dtype)


@pytest.mark.parametrize("size", [0.01, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_are_nearer_to_the_exact_ones_than_autograds(dtype: torch.dtype, size: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x, upstream = (torch.randn(2, 7, SIZE, generator=generator).to(dtype) for _ in range(2))
    x, weight = (size * x).requires_grad_(), torch.randn(SIZE, generator=generator).to(dtype)
    exact = gradients(Stock(weight.double(), 1e-5), x.detach().double().requires_grad_(), upstream.double())
    ours = gradients(LeanRMSNorm(nn.Parameter(weight), 1e-5), x, upstream)
    theirs = gradients(Stock(weight, 1e-5), x, upstream)
    for own, stock, true in zip(ours, theirs, exact, strict=True):
        error, limit = ((found.double() - true).norm() / true.norm() for found in (own, stock))
        assert own.dtype == dtype
        assert error <= (1.05 * limit if dtype == torch.bfloat16 else 1e-6)


@pytest.mark.parametrize("frozen", ["input", "weight"])
def test_what_is_frozen_gets_no_gradient(frozen: str) -> None:
    norm = LeanRMSNorm(nn.Parameter(torch.ones(SIZE), requires_grad=frozen != "weight"), 1e-5)
    x = torch.randn(3, SIZE, requires_grad=frozen != "input")
    norm(x).square().sum().backward()
    assert (x.grad is None) == (frozen == "input")
    assert (norm.weight.grad is None) == (frozen == "weight")


def test_it_is_what_torch_calls_rms_norm() -> None:
    x, weight = torch.randn(5, SIZE), torch.randn(SIZE)
    torch.testing.assert_close(
        LeanRMSNorm(nn.Parameter(weight), 1e-5)(x), functional.rms_norm(x, (SIZE,), weight, 1e-5)
    )
