"""T23: learning rates step by step, against the DPO authors' LambdaLR and transformers' decays."""

import pytest
import torch
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

from core.training.plan import Schedule, SftPlan
from core.training.steps.schedule import learning_rate_at


def plan(schedule: Schedule, warmup_steps: int) -> SftPlan:
    return SftPlan(epochs=1, learning_rate=5e-7, batch_size=1, warmup_steps=warmup_steps, schedule=schedule)


def rates_of(scheduler: torch.optim.lr_scheduler.LRScheduler, num_steps: int) -> list[float]:
    rates = []
    for _ in range(num_steps):
        rates.append(scheduler.get_last_lr()[0])
        scheduler.optimizer.step()
        scheduler.step()
    return rates


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=5e-7)


@pytest.mark.parametrize("warmup_steps", [0, 1, 150])
def test_warm_up_is_that_of_the_dpo_authors(warmup_steps: int) -> None:
    theirs = torch.optim.lr_scheduler.LambdaLR(optimizer(), lambda step: min(1.0, (step + 1) / (warmup_steps + 1)))
    ours = [learning_rate_at(plan("constant", warmup_steps), step, 200) for step in range(1, 201)]
    assert ours == pytest.approx(rates_of(theirs, 200), rel=1e-12)


@pytest.mark.parametrize(
    ("schedule", "make"),
    [("linear", get_linear_schedule_with_warmup), ("cosine", get_cosine_schedule_with_warmup)],
)
def test_decays_are_those_of_transformers(schedule: Schedule, make: object) -> None:
    """After warm-up, where the warm-ups differ."""
    theirs = make(optimizer(), num_warmup_steps=10, num_training_steps=60)  # type: ignore[operator]
    ours = [learning_rate_at(plan(schedule, 10), step, 60) for step in range(1, 61)]
    assert ours[10:] == pytest.approx(rates_of(theirs, 60)[10:], rel=1e-12)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_every_rate_is_positive_and_none_over_the_peak(schedule: Schedule) -> None:
    for warmup_steps in (0, 3, 20, 50):
        rates = [learning_rate_at(plan(schedule, warmup_steps), step, 20) for step in range(1, 21)]
        assert all(0 < rate <= 5e-7 for rate in rates)
