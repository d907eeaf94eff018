import pytest
import torch
from torch import Tensor

from core.training.kernels import lm_head
from core.training.kernels.lm_head import HeadWeights, linear_logps

S, H, V = 23, 12, 61


def inputs(dtype: torch.dtype = torch.float32, *, bias: bool = False) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(S, H, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(V, H, generator=generator).to(dtype).requires_grad_()
    offsets = torch.randn(V, generator=generator).to(dtype).requires_grad_() if bias else None
    return hidden, weight, offsets, torch.randint(0, V, (S,), generator=generator)


def plain_logps(hidden: Tensor, targets: Tensor, weights: HeadWeights) -> Tensor:
    logits = (hidden @ weights.weight.t()).float()
    if weights.bias is not None:
        logits = logits + weights.bias
    logits = logits * weights.scale
    if weights.softcap is not None:
        logits = weights.softcap * torch.tanh(logits / weights.softcap)
    return torch.log_softmax(logits, -1).gather(1, targets[:, None])[:, 0]


@pytest.fixture(params=["kept", "computed again", "tiled and kept", "tiled and computed again"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "again" in request.param:
        monkeypatch.setattr(lm_head, "KEPT_BYTES", 0)
    if "tiled" in request.param:
        monkeypatch.setattr(lm_head, "MIN_TILE_ROWS", 4)
        monkeypatch.setattr(lm_head, "CPU_TILE_BYTES", 5 * V * 4)


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("scale", [1.0, 0.25])
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("bias", [False, True])
def test_values_and_gradients_are_those_of_log_softmax(scale: float, softcap: float | None, bias: bool) -> None:
    hidden, weight, offsets, targets = inputs(bias=bias)
    weights = HeadWeights(weight=weight, bias=offsets, scale=scale, softcap=softcap)
    leaves = [tensor for tensor in (hidden, weight, offsets) if tensor is not None]
    upstream = torch.linspace(-1, 1, S)
    actual, *_ = linear_logps(hidden, targets, weights)
    expected = plain_logps(hidden, targets, weights)
    torch.testing.assert_close(actual, expected)
    for ours, theirs in zip(
        torch.autograd.grad(actual, leaves, upstream), torch.autograd.grad(expected, leaves, upstream), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_a_frozen_head_gives_the_same_hidden_gradient(softcap: float | None) -> None:
    """LoRA trains below the head only."""
    hidden, weight, _, targets = inputs()
    upstream = torch.linspace(-1, 1, S)
    trained = HeadWeights(weight=weight, softcap=softcap)
    frozen = HeadWeights(weight=weight.detach(), softcap=softcap)
    (expected,) = torch.autograd.grad(plain_logps(hidden, targets, trained), hidden, upstream)
    (actual,) = torch.autograd.grad(linear_logps(hidden, targets, frozen)[0], hidden, upstream)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("_way")
def test_a_frozen_body_gives_the_same_weight_gradient() -> None:
    hidden, weight, _, targets = inputs()
    weights = HeadWeights(weight=weight)
    (expected,) = torch.autograd.grad(plain_logps(hidden.detach(), targets, weights).sum(), weight)
    (actual,) = torch.autograd.grad(linear_logps(hidden.detach(), targets, weights)[0].sum(), weight)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("_way")
def test_bfloat16_gradients_keep_their_direction() -> None:
    hidden, weight, _, targets = inputs(torch.bfloat16)
    upstream = torch.linspace(-1, 1, S)
    exact = [hidden.detach().double().requires_grad_(), weight.detach().double().requires_grad_()]
    logits = exact[0] @ exact[1].t()
    expected = torch.log_softmax(logits, -1).gather(1, targets[:, None])[:, 0]
    actual, *_ = linear_logps(hidden, targets, HeadWeights(weight=weight))
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual.double(), expected, rtol=0, atol=0.05)
    for ours, theirs in zip(
        torch.autograd.grad(actual, [hidden, weight], upstream),
        torch.autograd.grad(expected, exact, upstream.double()),
        strict=True,
    ):
        assert ours.dtype == torch.bfloat16
        assert torch.nn.functional.cosine_similarity(ours.double().flatten(), theirs.flatten(), dim=0) > 0.9999


def test_no_graph_without_gradients() -> None:
    hidden, weight, _, targets = inputs()
    with torch.no_grad():
        logps, collisions, _ = linear_logps(hidden, targets, HeadWeights(weight=weight))
    assert not logps.requires_grad
    assert collisions is None


@pytest.mark.parametrize("enabled", [False, True])
def test_collisions_are_the_sum_of_squared_probabilities(enabled: bool) -> None:
    hidden, weight, _, targets = inputs()
    with torch.set_grad_enabled(enabled):
        _, collisions, _ = linear_logps(hidden, targets, HeadWeights(weight=weight), needs_collisions=True)
    assert collisions is not None
    assert not collisions.requires_grad
    expected = (hidden @ weight.t()).softmax(-1).square().sum(-1).log()
    torch.testing.assert_close(collisions, expected.detach())


def test_extreme_logits_stay_finite() -> None:
    hidden = torch.tensor([[1e4], [-1e4]], requires_grad=True)
    weight = torch.tensor([[1.0], [-1.0], [0.0]], requires_grad=True)
    logps, *_ = linear_logps(hidden, torch.tensor([0, 0]), HeadWeights(weight=weight))
    assert logps.tolist() == [0.0, -2e4]
    gradients = torch.autograd.grad(logps.sum(), [hidden, weight])
    assert all(gradient.isfinite().all() for gradient in gradients)
