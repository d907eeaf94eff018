"""Gated MLP that keeps half as much for the backward pass: the model's own numbers and gradients, to the bit."""

import pytest
import torch
from packed_rows import make_stock_model
from torch import Tensor, nn

from core.training.kernels.gated_mlp import LeanGatedMLP, replace_gated_mlps

LAYERS, SIZE, INNER = 2, 6, 10


@pytest.mark.parametrize(
    ("architecture", "count"), [("llama", LAYERS), ("qwen2", LAYERS), ("mistral", LAYERS), ("gemma", 0), ("gpt2", 0)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_stands_in_where_a_model_computes_the_same(architecture: str, count: int, dtype: torch.dtype) -> None:
    """Gemma's gate is GELU, and GPT-2 has none."""
    model = make_stock_model(architecture).eval().to(dtype)
    names, ids, found = list(model.state_dict()), torch.arange(12)[None], []
    for replaced in (0, count):
        assert (replace_gated_mlps(model) if replaced else 0) == replaced
        model.zero_grad()
        logits = model(input_ids=ids).logits
        logits.float().log_softmax(-1)[0, :, 3].sum().backward()
        found.append([logits, *(parameter.grad for parameter in model.parameters())])
    assert list(model.state_dict()) == names
    for before, after in zip(*found, strict=True):
        assert torch.equal(before, after)


class Stock(nn.Module):
    def __init__(self, *, bias: bool = False) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = (nn.Linear(SIZE, INNER, bias=False) for _ in range(2))
        self.down_proj = nn.Linear(INNER, SIZE, bias=bias)
        self.act_fn = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))
        return output


def kept_numbers(module: nn.Module, num_tokens: int) -> int:
    """Numbers that autograd keeps, parameters and input left out."""
    x = torch.randn(1, num_tokens, SIZE, requires_grad=True)
    known = {tensor.data_ptr() for tensor in (x, *module.parameters())}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in known:
            kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = module(x)
    del output
    return sum(kept.values())


def test_it_keeps_gate_and_up_alone() -> None:
    stock = Stock()
    assert kept_numbers(stock, 7) == 4 * 7 * INNER
    assert kept_numbers(LeanGatedMLP(stock), 7) == 2 * 7 * INNER


@pytest.mark.parametrize("frozen", ["input", "weights"])
def test_what_is_frozen_gets_no_gradient(frozen: str) -> None:
    lean = LeanGatedMLP(Stock()).requires_grad_(frozen != "weights")
    x = torch.randn(3, SIZE, requires_grad=frozen != "input")
    lean(x).square().sum().backward()
    assert (x.grad is None) == (frozen == "input")
    assert all((parameter.grad is None) == (frozen == "weights") for parameter in lean.parameters())


def test_layers_that_are_watched_or_have_a_bias_run_themselves() -> None:
    stock, calls = Stock(bias=True), []
    x = torch.randn(3, SIZE)
    assert torch.equal(LeanGatedMLP(stock)(x), stock(x))
    watched = Stock()
    watched.down_proj.register_forward_hook(lambda *_: calls.append(1))
    LeanGatedMLP(watched)(x)
    assert calls == [1]
