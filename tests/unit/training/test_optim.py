"""Updates: torch's own step by step, in float32 behind bfloat16 weights."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from core.training.plan import OptimizerName, SftPlan
from core.training.steps import optimizer as optim
from core.training.steps.optimizer import MasterOptimizer

LEARNING_RATE = 1e-2


def plan(name: OptimizerName = "adamw", **changes: object) -> SftPlan:
    values = {"max_grad_norm": 1e9, **changes}
    return SftPlan(epochs=1, learning_rate=LEARNING_RATE, batch_size=1, optimizer=name, **values)  # type: ignore[arg-type]


def parameters(dtype: torch.dtype = torch.float32) -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"embedding": (7, 3), "matrix": (5, 4), "norm": (4,)}
    return {name: nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for name, shape in shapes.items()}


def losses(values: dict[str, nn.Parameter], step: int) -> Tensor:
    """A loss with another gradient every step."""
    generator = torch.Generator().manual_seed(step)
    return sum(  # type: ignore[return-value]
        (p.float() * torch.randn(p.shape, generator=generator)).sum() + p.float().square().sum()
        for p in values.values()
    )


def ours_after(values: dict[str, nn.Parameter], stage: SftPlan, num_steps: int) -> dict[str, Tensor]:
    optimizer = MasterOptimizer(values, stage)
    for step in range(num_steps):
        losses(values, step).backward()
        optimizer.update(LEARNING_RATE * (step + 1), float(optimizer.grad_norm()))
    return optimizer.masters


def theirs_after(make: Callable[[list[nn.Parameter]], torch.optim.Optimizer], num_steps: int) -> dict[str, Tensor]:
    values = parameters()
    optimizer = make(list(values.values()))
    for step in range(num_steps):
        optimizer.zero_grad()
        losses(values, step).backward()
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * (step + 1)
        optimizer.step()
    return {name: value.detach() for name, value in values.items()}


def test_rmsprop_is_torchs_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optim, "CPU_PORTION", 8)  # several of both even here
    monkeypatch.setattr(optim, "CPU_CHUNK", 4)
    theirs = theirs_after(lambda values: torch.optim.RMSprop(values, alpha=0.99, eps=1e-8), 5)
    for name, ours in ours_after(parameters(), plan("rmsprop"), 5).items():
        assert torch.equal(ours, theirs[name])


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.8, 0.95)])
@pytest.mark.parametrize("portion", [8, 2**22])
def test_adamw_is_torchs(portion: int, betas: tuple[float, float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optim, "CPU_PORTION", portion)
    theirs = theirs_after(lambda values: torch.optim.AdamW(values, betas=betas, weight_decay=0.0), 5)
    for name, ours in ours_after(parameters(), plan(betas=betas), 5).items():
        torch.testing.assert_close(ours, theirs[name], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["adamw", "rmsprop"])
def test_weight_decay_is_decoupled_and_spares_vectors(name: OptimizerName) -> None:
    """One step: what decay adds is lr * decay * weight, whatever the gradient."""
    start = {key: value.detach().clone() for key, value in parameters().items()}
    plain, decayed = (ours_after(parameters(), plan(name, weight_decay=decay), 1) for decay in (0.0, 0.5))
    for key in ("embedding", "matrix"):
        torch.testing.assert_close(plain[key] - decayed[key], LEARNING_RATE * 0.5 * start[key], rtol=1e-4, atol=1e-6)
    assert torch.equal(plain["norm"], decayed["norm"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_are_clipped_by_their_global_norm(dtype: torch.dtype) -> None:
    """As torch.nn.utils.clip_grad_norm_ does, seen through one step of plain RMSprop without memory."""
    values = parameters(dtype)
    start = {name: value.detach().float().clone() for name, value in values.items()}
    optimizer = MasterOptimizer(values, plan("rmsprop", max_grad_norm=0.5, alpha=0.0, epsilon=1e6))
    losses(values, 0).backward()
    norm = float(optimizer.grad_norm())
    assert norm > 0.5
    optimizer.update(1e3, norm)
    moved = torch.stack([(optimizer.masters[name] - start[name]).norm() for name in start]).norm()
    assert float(moved) == pytest.approx(1e3 * 0.5 / 1e6, rel=1e-3)


def test_small_updates_add_up_behind_coarse_weights() -> None:
    """A weight of 1 in bfloat16 is 2^-8 from the next below: 100 updates of 1e-4 move it, one does not."""
    weight = nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
    optimizer = MasterOptimizer({"weight": weight}, plan())
    for step in range(100):
        weight.float().sum().backward()
        optimizer.update(1e-4, float(optimizer.grad_norm()))
        if step == 0:
            assert weight.item() == 1.0
    assert optimizer.masters["weight"].item() == pytest.approx(0.99, abs=1e-4)
    assert weight.item() == torch.tensor(0.99).bfloat16().item()


def test_micro_batches_are_summed_in_float32() -> None:
    """A gradient of 1 and then a hundred of 2^-10: a bfloat16 sum would stay at 1."""
    weight = nn.Parameter(torch.zeros(1, dtype=torch.bfloat16))
    optimizer = MasterOptimizer({"weight": weight}, plan())
    for size in (1.0, *[2.0**-10] * 100):
        (weight * size).sum().backward()
    assert weight.grad is None
    assert float(optimizer.grad_norm()) == 1.0 + 100 * 2.0**-10


def test_the_gradient_of_a_single_micro_batch_is_used_as_it_is() -> None:
    """Behind bfloat16 weights: masters move as those of float32 weights with the same, rounded gradient do."""
    coarse, fine = ({"weight": nn.Parameter(torch.ones(9, dtype=dtype))} for dtype in (torch.bfloat16, torch.float32))
    gradient = torch.linspace(-1, 1, 9).bfloat16()
    masters = []
    for values in (coarse, fine):
        optimizer = MasterOptimizer(values, plan(max_grad_norm=0.5))
        for _ in range(3):
            (values["weight"] * gradient.to(values["weight"].dtype)).sum().backward()
            optimizer.update(LEARNING_RATE, float(optimizer.grad_norm()))
        masters.append(optimizer.masters["weight"])
    assert torch.equal(*masters)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_parameter_without_gradient_stays(dtype: torch.dtype) -> None:
    values = parameters(dtype)
    before = values["norm"].detach().clone()
    optimizer = MasterOptimizer(values, plan("rmsprop"))
    for _ in range(2):
        values["matrix"].sum().backward()
        optimizer.update(LEARNING_RATE, float(optimizer.grad_norm()))
    assert torch.equal(values["norm"], before)


def test_cleared_gradients_are_gone() -> None:
    values = parameters(torch.bfloat16)
    optimizer = MasterOptimizer(values, plan())
    losses(values, 0).backward()
    optimizer.clear_gradients()
    assert float(optimizer.grad_norm()) == 0.0
