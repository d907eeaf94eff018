"""KTO in whole runs: single responses marked good or bad, against what transformers and the formula give.

Covers T1 (step 0), T9 (accumulation), T14 (resume) and T21 (the estimate of the KL is that of the whole step).
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from packed_rows import make_stock_model, stock_token_logps
from tiny_runs import (
    RecordingObserver,
    World,
    random_pairs,
    run,
    run_with_stops,
    tree_bytes,
    untimed,
    weights,
    write_data,
)

from core.domain.training import metric_names as names
from core.training.data.columns import to_host
from core.training.data.encoded import EncodedData
from core.training.data.order import Cursor, DataOrder, partners
from core.training.failures import BadData
from core.training.losses.objective import build_unpaired_objective
from core.training.model.loading import load_causal_lm
from core.training.model.policies import trainable_parameters
from core.training.observer import Stage
from core.training.plan import DpoPlan, LoraPlan, ReusePlan, SftPlan, TrainingPlan
from core.training.steps.optimizer import MasterOptimizer
from core.training.steps.reference_logps import SplitLogps
from core.training.steps.unpaired import UnpairedForward, UnpairedTask

OPTIONS = {"desirable_weight": 1.5, "undesirable_weight": 0.5}
NUM_ROWS = 13
GOOD = frozenset({0, 1, 4, 6, 7, 10})


def rows(num_rows: int = NUM_ROWS, seed: int = 1, good: frozenset[int] = GOOD) -> list[Any]:
    """Good responses keep to the lower half of the vocabulary, bad ones to the upper."""
    pairs = random_pairs(num_rows, seed)
    return [(prompt, chosen if index in good else rejected) for index, (prompt, chosen, rejected) in enumerate(pairs)]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("world"))


def kto_plan(world: World, name: str, **changes: Any) -> TrainingPlan:
    held_out = frozenset({0, 2, 3})
    data = {
        "train_data": write_data(world.directory / "unpaired", rows(), "unpaired", GOOD),
        "validation_data": write_data(world.directory / "held-out", rows(5, 2, held_out), "unpaired", held_out),
    }
    return world.plan(name, **(data | {"variant": "kto", "variant_options": OPTIONS} | changes))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("changes", [{}, {"sft": None}, {"lora": LoraPlan(rank=2)}], ids=["full", "no-sft", "lora"])
def test_rewards_and_kl_are_exactly_zero_before_the_first_update(
    changes: dict[str, Any], precision: str, world: World
) -> None:
    plan = kto_plan(world, "-".join(["zero", precision, *changes]), precision=precision, **changes)
    observer = RecordingObserver()
    run(dataclasses.replace(plan, dpo=dataclasses.replace(plan.dpo, epochs=1)), observer)
    first = [point for point in observer.points if point.stage == "dpo"][:2]
    assert [(point.split, point.step) for point in first] == [("validation", 0), ("train", 1)]
    for point in first:
        zeros = (names.REWARDS, names.KL, names.CHOSEN_REWARDS, names.REJECTED_REWARDS, names.REWARD_ACCURACIES)
        assert {point.values[name] for name in zeros} <= {0.0, None}
    order = DataOrder(NUM_ROWS, 4, 1, seed=0, stage=Stage.DPO).rows_at(Cursor())
    expected = np.mean([0.5 * (1.5 if row in GOOD else 0.5) for row in order])
    assert first[1].values[names.LOSS] == expected
    assert observer.curve("dpo", "train", names.REWARDS)[-1] != 0.0


def stock_sum(model: Any, prompt: Any, response: Any) -> torch.Tensor:
    return stock_token_logps(model, prompt, response).sum()


def make_task(world: World, data: EncodedData, reference: SplitLogps) -> tuple[UnpairedTask, MasterOptimizer]:
    model = load_causal_lm(world.base_model_dir, dtype=torch.float32)
    objective = build_unpaired_objective("kto", 0.1, OPTIONS)
    optimizer = MasterOptimizer(trainable_parameters(model), SftPlan(epochs=1, learning_rate=1e-3, batch_size=4))
    return UnpairedTask(UnpairedForward(model, data, objective, reference)), optimizer


@pytest.mark.parametrize("budget", [10_000, 40, 1], ids=["at-once", "uneven", "alone"])
def test_gradients_are_those_of_the_formula_however_the_step_is_cut(budget: int, world: World) -> None:
    """arXiv:2402.01306, eq. 7, with transformers' own log-probabilities of rows and mismatched rows."""
    stock, others = make_stock_model("llama").eval(), partners(NUM_ROWS, 0)
    pairs = [(prompt, own, rows()[other][1]) for (prompt, own), other in zip(rows(), others, strict=True)]
    own = torch.stack([stock_sum(stock, prompt, response) for prompt, response, _ in pairs])
    mismatched = torch.stack([stock_sum(stock, prompt, response) for prompt, _, response in pairs]).detach()
    generator = torch.Generator().manual_seed(3)
    # The policy has moved up, so that z is above 0.
    references = torch.stack((own.detach(), mismatched), 1) - 4 * torch.rand(NUM_ROWS, 2, generator=generator)
    z = (mismatched - references[:, 1]).mean().clamp(min=0)
    assert z > 0.5
    is_good = torch.tensor([row in GOOD for row in range(NUM_ROWS)])
    rho = own - references[:, 0]
    expected = torch.where(
        is_good, 1.5 * (1 - torch.sigmoid(0.1 * (rho - z))), 0.5 * (1 - torch.sigmoid(0.1 * (z - rho)))
    )
    expected.mean().backward()
    data = EncodedData.open(kto_plan(world, "formula").train_data).with_partners(others)
    reference = SplitLogps(references.numpy(), references.numpy())
    task, optimizer = make_task(world, data, reference)
    batches = task.pack(range(NUM_ROWS), budget)
    assert len(batches) == {10_000: 2, 1: 2 * NUM_ROWS}.get(budget, len(batches)) > 1
    host = to_host(task.backward(batches), range(NUM_ROWS), optimizer.grad_norm())
    np.testing.assert_allclose(host.values[0], expected.detach().numpy(), rtol=1e-4, atol=1e-5)
    assert task.figures(host)[names.KL] == pytest.approx(float(z), rel=1e-4)
    wanted = dict(stock.named_parameters())
    found = dict(zip(optimizer.masters, optimizer._gradients(), strict=True))
    assert found.keys() == trainable_parameters(task._forward.model).keys()
    for name in found:
        gradient = wanted[name].grad
        assert gradient is not None
        scale = float(gradient.abs().max())
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-4 * scale, msg=name)


@pytest.mark.parametrize("changes", [{}, {"lora": LoraPlan(rank=2), "precision": "bf16"}], ids=["full", "lora"])
def test_stopped_and_resumed_it_ends_with_the_same_bytes(changes: dict[str, Any], world: World) -> None:
    plan = kto_plan(world, "-".join(["whole", *changes]), **changes)
    observer = RecordingObserver()
    whole = run(plan, observer)
    pieces, seen = run_with_stops(dataclasses.replace(plan, work_dir=plan.work_dir + "-piece"), 5)
    assert untimed(seen.points) == untimed(observer.points)
    assert tree_bytes(pieces.policy_dir) == tree_bytes(whole.policy_dir)
    assert pieces.pairs_file is not None
    assert whole.pairs_file is not None
    assert pieces.pairs_file.read_text() == whole.pairs_file.read_text()


def test_another_beta_takes_policy_and_reference_over(world: World) -> None:
    plan = kto_plan(world, "first")
    first, second, alone = RecordingObserver(), RecordingObserver(), RecordingObserver()
    run(plan, first)
    reuse = ReusePlan(
        sft_dir=str(first.outputs[Stage.SFT].directory), reference_dir=str(first.outputs[Stage.REFERENCE].directory)
    )
    other = dataclasses.replace(plan, beta=0.4)
    shared = run(dataclasses.replace(other, work_dir=plan.work_dir + "-shared", reuse=reuse), second)
    expected = run(dataclasses.replace(other, work_dir=plan.work_dir + "-alone"), alone)
    assert second.calls[:2] == [("reused", Stage.SFT), ("reused", Stage.REFERENCE)]
    assert tree_bytes(shared.policy_dir) == tree_bytes(expected.policy_dir)


def test_good_responses_gain_and_bad_ones_lose(world: World) -> None:
    good = frozenset(range(0, 60, 2))
    data = write_data(world.directory / "many", rows(60, 3, good), "unpaired", good)
    plan = kto_plan(world, "learns", train_data=data, micro_batch_tokens=320, variant_options={}, sft=None)
    plan = dataclasses.replace(plan, dpo=DpoPlan(epochs=4, learning_rate=3e-3, batch_size=12), evaluate_every_steps=100)
    observer = RecordingObserver()
    result = run(plan, observer)
    last = [point for point in observer.points if point.split == "train"][-1].values
    assert last[names.REWARD_ACCURACIES] == 1.0
    assert (last[names.CHOSEN_REWARDS] or 0) > 0.3 > -0.3 > (last[names.REJECTED_REWARDS] or 0)
    assert (result.evaluation[names.REWARD_MARGINS] or 0) > 0, "on held-out rows too"
    assert result.pairs_file is not None
    records = [json.loads(line) for line in result.pairs_file.read_text().splitlines()]
    for record in records[:60]:
        row = record["line"] - 1
        known, absent = ("chosen_reward", "rejected_reward") if row in good else ("rejected_reward", "chosen_reward")
        assert record[absent] is None
        assert record["margin_last"] == pytest.approx(abs(record[known]), abs=1e-6), "by now all are on their side"


def test_sft_learns_from_the_good_responses_alone(world: World) -> None:
    """The same policy as from these as demonstrations."""
    plan = kto_plan(world, "sft-good")
    kept = [row for index, row in enumerate(rows()) if index in GOOD]
    observers = [RecordingObserver(), RecordingObserver()]
    run(plan, observers[0])
    data = write_data(world.directory / "demonstrations", kept, "demonstration")
    run(dataclasses.replace(plan, work_dir=plan.work_dir + "-demonstrations", sft_data=data), observers[1])
    files = [observer.outputs[Stage.SFT].directory / "model.safetensors" for observer in observers]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert observers[0].outputs[Stage.SFT].digest != observers[1].outputs[Stage.SFT].digest


def test_what_cannot_be_trained_on_is_refused(world: World, tmp_path: Path) -> None:
    single = write_data(tmp_path / "single", rows(1), "unpaired", {0})
    with pytest.raises(BadData, match="only one row"):
        run(kto_plan(world, "single", train_data=single), RecordingObserver())
    bad = write_data(tmp_path / "bad", rows(4), "unpaired")
    with pytest.raises(BadData, match="marked good"):
        run(kto_plan(world, "bad", train_data=bad), RecordingObserver())
    assert weights(run(kto_plan(world, "bad-no-sft", train_data=bad, sft=None), RecordingObserver()))
    with pytest.raises(BadData, match="of kind unpaired"):
        run(kto_plan(world, "kind", variant="dpo", variant_options={}), RecordingObserver())
