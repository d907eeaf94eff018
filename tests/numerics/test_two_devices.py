"""FSDP2: two processes, joined by gloo on the CPU, train as one does.

Weights, gradients and optimizer states lie in halves; sums are added up in another order, so the curves of one process
and of two agree within rounding. Between runs of two processes nothing differs at all.
"""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ranked_runs import run_on_ranks
from tiny_runs import RecordingObserver, World, random_pairs, tree_bytes, untimed, weights, write_data

from core.domain.training.metric_names import TIMING
from core.training.failures import TrainingStopped
from core.training.observer import Stage
from core.training.pipeline import TrainingResult, run
from core.training.plan import Layout, LoraPlan, RewardPlan, TrainingPlan

TOLERANCE = 1e-5
COARSE = {"rewards/length_correlation": 1e-3}
"""A quotient of margins that are all but 0 in the first steps."""
COARSE_IN_BF16 = {"logps/chosen_fell": 0.25, "rewards/accuracies": 0.25, "mean_token_accuracy": 0.1}
"""Shares by a sign or by the likeliest token, which rounding turns over at one of a few."""
NO_VALUE_IN_BF16 = frozenset({"rewards/length_correlation"})
"""The same quotient: margins of the first steps are as small as bf16's rounding, so it may be anything in [-1, 1]. The
margins that it is made of are compared in both precisions, and it is compared in float32."""


@pytest.fixture(scope="module", autouse=True)
def short_draws() -> None:
    """Draw as many tokens as a run does: ranks are processes of their own."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("world"))


def on_two(plan: TrainingPlan, name: str) -> TrainingPlan:
    return dataclasses.replace(plan, num_devices=2, work_dir=f"{plan.work_dir}-{name}")


def assert_same_run(
    one: tuple[TrainingResult, RecordingObserver], two: tuple[TrainingResult, RecordingObserver], tolerance: float
) -> None:
    (alone, curves), (together, other_curves) = one, two
    assert len(curves.points) == len(other_curves.points) > 8
    coarse = COARSE if tolerance == TOLERANCE else COARSE_IN_BF16
    for point, other in zip(curves.points, other_curves.points, strict=True):
        assert (point.stage, point.split, point.step) == (other.stage, other.split, other.step)
        for name in point.values.keys() - TIMING - (frozenset() if coarse is COARSE else NO_VALUE_IN_BF16):
            np.testing.assert_allclose(
                np.float64(other.values[name] or 0.0),
                np.float64(point.values[name] or 0.0),
                rtol=tolerance,
                atol=max(tolerance, coarse.get(name, 0.0)),
                err_msg=f"{point.stage} {point.split} {point.step} {name}",
            )
    expected, found = weights(alone), weights(together)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name].float(), tensor.float(), rtol=tolerance, atol=tolerance)


def compare(
    plan: TrainingPlan, tolerance: float = TOLERANCE
) -> tuple[TrainingResult, RecordingObserver, tuple[TrainingResult, RecordingObserver]]:
    """Both ways; returns the run of two processes, and that of one."""
    observer, together = RecordingObserver(), RecordingObserver()
    one = run(plan, observer)
    two = run_on_ranks(on_two(plan, "two"), together)
    assert_same_run((one, observer), (two, together), tolerance)
    return two, together, (one, observer)


@pytest.mark.slow  # a minute
@pytest.mark.timeout(480)
def test_two_processes_take_the_steps_of_one_and_resume_exactly(world: World) -> None:
    """Two beside one; then from a checkpoint in DPO on, again by two (the same bytes) and by one (the same curve).

    The checkpoint of one process is gone on from by two as well.
    """
    plan = world.plan("full", checkpoint_every_steps=4)
    whole, observer, (single, curves) = compare(plan)
    first = observer.points[[point.stage for point in observer.points].index("dpo")]
    assert first.values["rewards/margins"] == 0.0
    middle = next(ref for ref in observer.checkpoints if (ref.stage, ref.step) == (Stage.DPO, 4))
    rest, alone = RecordingObserver(), RecordingObserver()
    resumed = dataclasses.replace(on_two(plan, "rest"), resume_from=str(middle.directory))
    assert tree_bytes(run_on_ranks(resumed, rest).policy_dir) == tree_bytes(whole.policy_dir)
    before = observer.points[: -len(rest.points)]
    assert untimed([*before, *rest.points]) == untimed(observer.points)
    result = run(dataclasses.replace(resumed, num_devices=1, work_dir=f"{plan.work_dir}-alone"), alone)
    assert ("warning", "resumed_elsewhere") in alone.events
    alone.points = [*before, *alone.points]
    assert_same_run((whole, observer), (result, alone), TOLERANCE)
    other, spread = (
        next(ref for ref in curves.checkpoints if (ref.stage, ref.step) == (Stage.DPO, 4)),
        RecordingObserver(),
    )
    resumed = dataclasses.replace(on_two(plan, "spread"), resume_from=str(other.directory))
    result = run_on_ranks(resumed, spread)
    assert ("warning", "resumed_elsewhere") in spread.events
    spread.points = [*curves.points[: -len(spread.points)], *spread.points]
    assert_same_run((single, curves), (result, spread), TOLERANCE)


@pytest.mark.parametrize(
    ("changes", "tolerance"),
    [
        pytest.param({"lora": LoraPlan(rank=2)}, TOLERANCE, marks=pytest.mark.slow),
        pytest.param({"precision": "bf16", "lora": LoraPlan(rank=2)}, 0.05, marks=pytest.mark.slow),
        pytest.param({"precision": "bf16"}, 0.05, marks=pytest.mark.slow),
        ({"variant": "aot", "sft": None}, TOLERANCE),  # whose pairs of a step see each other
        pytest.param({"variant": "wpo", "sft": None}, TOLERANCE, marks=pytest.mark.slow),
        pytest.param({"variant": "simpo", "sft": None}, TOLERANCE, marks=pytest.mark.slow),
    ],
    ids=lambda value: "-".join(f"{value}".split("'")[1:6:2]) if isinstance(value, dict) else "",
)
def test_every_kind_of_run(changes: dict[str, Any], tolerance: float, world: World) -> None:
    _, together, _ = compare(world.plan(f"kind-{abs(hash(repr(changes)))}", **changes), tolerance)
    assert together.points[-1].stage == Stage.DPO


@pytest.mark.slow
def test_two_nodes_give_the_bytes_of_one(world: World) -> None:
    """Two agents with a rank each, beside one agent with two."""
    plan = world.plan("nodes", sft=None)
    one = run_on_ranks(on_two(plan, "one"), RecordingObserver())
    two = run_on_ranks(on_two(plan, "two"), RecordingObserver(), num_nodes=2)
    assert tree_bytes(one.policy_dir) == tree_bytes(two.policy_dir)


def files_of_all_nodes(plan: TrainingPlan, directory: Path, target: Path) -> Path:
    """What a node has before it goes on from a checkpoint of two nodes: the files that each of them has written."""
    for work_dir in (plan.work_dir, f"{plan.work_dir}-node1"):
        shutil.copytree(Path(work_dir) / "checkpoints" / directory.name, target, dirs_exist_ok=True)
    return target


@pytest.mark.slow  # half a minute each
@pytest.mark.timeout(480)
@pytest.mark.parametrize(
    ("layout", "lora"),
    [("sharded", None), ("hybrid", None), ("hybrid", LoraPlan(rank=2)), ("replicated", LoraPlan(rank=2))],
    ids=["sharded", "hybrid", "hybrid-lora", "replicated-lora"],
)
def test_two_nodes_of_two_devices_share_the_model_in_every_way(
    layout: Layout, lora: LoraPlan | None, world: World, tmp_path: Path
) -> None:
    """Beside one process; then from a checkpoint in DPO on, by as many in the same way: the same bytes."""
    plan = world.plan(f"{layout}-{lora is None}", lora=lora, checkpoint_every_steps=4)
    curves, observer, rest = RecordingObserver(), RecordingObserver(), RecordingObserver()
    one = run(plan, curves)
    four = dataclasses.replace(on_two(plan, "four"), num_devices=4, layout=layout)
    result = run_on_ranks(four, observer, num_nodes=2)
    assert_same_run((one, curves), (result, observer), TOLERANCE)
    middle = next(ref for ref in observer.checkpoints if (ref.stage, ref.step) == (Stage.DPO, 4))
    whole = files_of_all_nodes(four, middle.directory, tmp_path / "checkpoint")
    again = dataclasses.replace(four, work_dir=f"{plan.work_dir}-rest", resume_from=str(whole))
    assert tree_bytes(run_on_ranks(again, rest, num_nodes=2).policy_dir) == tree_bytes(result.policy_dir)
    assert untimed([*observer.points[: -len(rest.points)], *rest.points]) == untimed(observer.points)


@pytest.mark.slow
def test_unpaired_rows(world: World) -> None:
    rows = random_pairs(11, 3)
    train = write_data(world.directory / "unpaired", rows, kind="unpaired", good=range(0, 11, 2))
    held_out = write_data(world.directory / "unpaired-held", rows[:5], kind="unpaired", good=(0, 3))
    _, together, _ = compare(world.plan("kto", variant="kto", train_data=train, validation_data=held_out))
    assert together.points[-1].stage == Stage.DPO


@pytest.mark.slow
def test_supervised(world: World) -> None:
    rows = [(prompt, chosen, []) for prompt, chosen, _ in random_pairs(16, 4)]
    train = write_data(world.directory / "demos", rows[:11], kind="demonstration")
    held_out = write_data(world.directory / "demos-held", rows[11:], kind="demonstration")
    changes: dict[str, Any] = {"method": "supervised", "dpo": None, "train_data": train, "validation_data": held_out}
    sft = dataclasses.replace(world.plan("sft").last_stage, epochs=3)
    result, together, _ = compare(world.plan("supervised", **changes, sft=sft))
    assert together.points[-1].stage == Stage.SFT
    assert result.summary["results"]["better_than_base_model"]["loss"]["value"] > 0  # type: ignore[call-overload,index]


@pytest.mark.slow
def test_stopped_anywhere_it_resumes_exactly(tmp_path: Path) -> None:
    """LoRA with dropout: in SFT, in the reference pass and in DPO."""
    world = World.make(tmp_path, num_train=6, num_validation=3)
    plan = world.plan("whole", lora=LoraPlan(rank=2, dropout=0.2))
    observer = RecordingObserver()
    expected = tree_bytes(run_on_ranks(on_two(plan, "whole"), observer).policy_dir)
    stages = set()
    for number in range(2, observer.num_polls, 3):
        stopped, rest = RecordingObserver(), RecordingObserver()
        with pytest.raises(TrainingStopped):
            run_on_ranks(on_two(plan, f"{number}"), stopped, stop_poll=number)
        stages.add(stopped.checkpoints[-1].stage)
        resumed = dataclasses.replace(
            on_two(plan, f"{number}-rest"), resume_from=str(stopped.checkpoints[-1].directory)
        )
        assert tree_bytes(run_on_ranks(resumed, rest).policy_dir) == expected
        assert untimed([*stopped.points, *rest.points]) == untimed(observer.points)
    assert stages == {Stage.SFT, Stage.REFERENCE, Stage.DPO}


@pytest.mark.slow  # half a minute
@pytest.mark.timeout(480)
def test_a_reward_model_of_two_processes_is_that_of_one(world: World) -> None:
    """Its head has one row, which one of the two keeps; the adapter is saved with it."""
    settings = RewardPlan(epochs=2, learning_rate=2e-3, batch_size=4)
    plan = world.plan("reward", method="reward", sft=None, dpo=None, reward=settings, sample_prompts=(), pad_token_id=1)
    compare(dataclasses.replace(plan, lora=LoraPlan(rank=2)))
