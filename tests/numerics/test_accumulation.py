"""T9, T17: how a step is cut into micro-batches changes neither gradients nor weights nor figures."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from packed_rows import make_stock_model, stock_token_logps
from tiny_runs import RecordingObserver, World, random_pairs, run, weights

from core.domain.training import metric_names as names
from core.training.data.columns import Columns, HostColumns, to_host
from core.training.data.encoded import EncodedData
from core.training.data.order import Cursor, DataOrder
from core.training.losses.objective import build_objective
from core.training.model.loading import load_causal_lm
from core.training.model.policies import trainable_parameters
from core.training.observer import Stage
from core.training.plan import LoraPlan, SftPlan, TrainingPlan
from core.training.steps.optimizer import MasterOptimizer
from core.training.steps.pairs import DpoTask, PairForward
from core.training.steps.reference_logps import SplitLogps
from core.training.steps.sft import SftTask

BUDGETS = (10_000, 1, 40)
"""All rows at once; every row alone; a few uneven micro-batches."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("world"))


def gentle(plan: TrainingPlan) -> TrainingPlan:
    """Large epsilons: without them, AdamW and RMSprop turn rounding noise of a zero gradient into a whole step."""

    def changed(stage: Any) -> Any:
        return dataclasses.replace(stage, learning_rate=1e-4, epsilon=1e-3)

    return dataclasses.replace(plan, sft=changed(plan.sft), dpo=changed(plan.dpo))


@pytest.mark.parametrize("changes", [{}, {"lora": LoraPlan(rank=2)}, {"variant": "aot"}], ids=["full", "lora", "aot"])
def test_weights_of_a_whole_run(changes: dict[str, Any], world: World) -> None:
    runs = []
    for budget in BUDGETS:
        observer = RecordingObserver()
        name = "-".join([str(budget), *changes])
        result = run(gentle(world.plan(name, micro_batch_tokens=budget, **changes)), observer)
        runs.append((weights(result), observer))
    expected, first = runs[0]
    for actual, observer in runs[1:]:
        for key, tensor in actual.items():
            torch.testing.assert_close(tensor, expected[key], rtol=0, atol=1e-6)
        for name in (names.LOSS, names.GRAD_NORM):
            for stage in ("sft", "dpo"):
                ours, theirs = (seen.curve(stage, "train", name) for seen in (observer, first))
                assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-6)


class Step:
    """One step of a task over all rows, cut by a budget."""

    def __init__(self, world: World, objective: str | None) -> None:
        self.model = load_causal_lm(world.base_model_dir, dtype=torch.float32)
        data = EncodedData.open(world.train_data)
        if objective is None:
            self.task: SftTask | DpoTask = SftTask(self.model, data)
        else:
            bound = build_objective(objective, 0.1, {})
            reference = _some_reference(len(data)) if bound.needs_reference else None
            self.task = DpoTask(PairForward(self.model, data, bound, reference))
        plan = SftPlan(epochs=1, learning_rate=1e-3, batch_size=4)
        self.optimizer = MasterOptimizer(trainable_parameters(self.model), plan)
        self.rows = list(range(len(data)))

    def gradients(self, budget: int) -> tuple[list[torch.Tensor], HostColumns, int]:
        self.optimizer.clear_gradients()
        batches = self.task.pack(self.rows, budget)
        columns: Sequence[Columns] = self.task.backward(batches)
        host = to_host(columns, self.rows, self.optimizer.grad_norm())
        return [gradient.clone() for gradient in self.optimizer._gradients()], host, len(batches)


def _some_reference(num_rows: int) -> SplitLogps:
    """Not the policy's own, so that pairs weigh differently."""
    generator = torch.Generator().manual_seed(5)
    sums, prefix_sums = (-40 * torch.rand(num_rows, 2, generator=generator) for _ in range(2))
    return SplitLogps(sums.numpy(), prefix_sums.numpy())


@pytest.mark.parametrize("objective", [None, "dpo", "aot", "rpo", "ld_dpo", "simpo", "wpo"])
def test_gradients_of_one_step(objective: str | None, world: World) -> None:
    step = Step(world, objective)
    expected, expected_host, num_batches = step.gradients(10_000)
    assert num_batches == 1
    for budget in (1, 40, 75):
        gradients, host, num_batches = step.gradients(budget)
        assert num_batches > 1
        for actual, wanted in zip(gradients, expected, strict=True):
            torch.testing.assert_close(actual, wanted, rtol=1e-4, atol=1e-5 * float(expected_host.extra[0]))
        actual_values, wanted_values = torch.from_numpy(host.values), torch.from_numpy(expected_host.values)
        if objective == "aot":  # its losses are those of ranks, not of rows
            actual_values[0], wanted_values[0] = actual_values[0].sort()[0], wanted_values[0].sort()[0]
        torch.testing.assert_close(actual_values, wanted_values, rtol=1e-4, atol=1e-4, equal_nan=True)


def test_the_sft_loss_is_the_mean_over_tokens_of_the_step(world: World) -> None:
    """As transformers scores them, one sequence at a time: not a mean of rows, nor of micro-batches."""
    observer = RecordingObserver()
    run(world.plan("sft-mean"), observer)
    order = DataOrder(11, 4, 1, seed=0, stage=Stage.SFT)
    pairs, model = random_pairs(11, 1), make_stock_model("llama").eval()
    with torch.no_grad():
        scored = [stock_token_logps(model, *pairs[row][:2]) for row in order.rows_at(Cursor())]
    assert len({len(tokens) for tokens in scored}) > 1
    expected = -float(torch.cat(scored).mean())
    assert observer.curve("sft", "train", names.LOSS)[0] == pytest.approx(expected, rel=1e-5)


def test_dpo_figures_are_means_over_the_pairs_of_the_step(world: World) -> None:
    """The first step of a run without SFT: log-probabilities of its four pairs, as transformers scores them."""
    observer = RecordingObserver()
    run(world.plan("dpo-mean", sft=None), observer)
    order = DataOrder(11, 4, 2, seed=0, stage=Stage.DPO)
    pairs, model = random_pairs(11, 1), make_stock_model("llama").eval()
    rows = order.rows_at(Cursor())
    with torch.no_grad():
        for name, side in ((names.CHOSEN_LOGPS, 1), (names.REJECTED_LOGPS, 2)):
            sums = [float(stock_token_logps(model, pairs[row][0], pairs[row][side]).sum()) for row in rows]
            assert observer.curve("dpo", "train", name)[0] == pytest.approx(sum(sums) / 4, rel=1e-5)


def test_bfloat16_micro_batches_lose_nothing_in_the_sum(world: World, tmp_path: Path) -> None:
    """Rows one at a time in bfloat16: the step's gradient is the float32 sum of the rows' own, to the bit."""
    step = Step(world, "dpo")
    model = load_causal_lm(world.base_model_dir, dtype=torch.bfloat16)
    forward = PairForward(model, step.task.data, build_objective("dpo", 0.1, {}), _some_reference(11))
    task, parameters = DpoTask(forward), trainable_parameters(model)
    optimizer = MasterOptimizer(parameters, SftPlan(epochs=1, learning_rate=1e-3, batch_size=4))
    batches = task.pack(step.rows, 1)
    task.backward(batches)
    total = optimizer._gradients()
    plain = load_causal_lm(world.base_model_dir, dtype=torch.bfloat16)
    again = DpoTask(dataclasses.replace(forward, model=plain))
    sums = {name: torch.zeros_like(parameter, dtype=torch.float32) for name, parameter in parameters.items()}
    for batch in again.pack(step.rows, 1):
        reference = again._forward.reference_logps(batch)
        losses = again._forward.objective(again._forward.policy_logps(batch), reference).losses
        (losses.sum() / 11).backward()
        for name, parameter in trainable_parameters(plain).items():
            assert parameter.grad is not None
            sums[name] += parameter.grad
            parameter.grad = None
    for actual, expected in zip(total, sums.values(), strict=True):
        assert torch.equal(actual, expected)
