"""Early stopping publishes the policy of the best evaluation, whenever the run was stopped and resumed."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from packed_rows import VOCABULARY, Row
from ranked_runs import run_on_ranks
from tiny_runs import RecordingObserver, World, run, run_with_stops, tree_bytes, untimed, weights, write_data

from core.training.observer import Stage
from core.training.plan import EarlyStoppingPlan, LoraPlan, TrainingPlan

BEST = EarlyStoppingPlan(metric="loss", patience=2, restore_best=True)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("world"))


def unrelated_pairs(seed: int) -> list[Row]:
    rng = np.random.default_rng(seed)

    def tokens(longest: int) -> list[int]:
        return [int(token) for token in rng.integers(2, VOCABULARY, rng.integers(1, longest + 1))]

    return [(tokens(9), tokens(11), tokens(11)) for _ in range(5)]


def spoilt(
    world: World, work_dir: str, stopping: EarlyStoppingPlan = BEST, *, learning_rate: float = 0.003, **changes: object
) -> TrainingPlan:
    """A run whose loss on these validation pairs, which have nothing to do with its own, falls once and then rises."""
    pairs = unrelated_pairs(101 if "lora" in changes else 105)
    data = write_data(world.directory / f"validation-{work_dir}", pairs)
    plan = world.plan(work_dir, **{"evaluate_every_steps": 1, "sft": None, "validation_data": data} | changes)
    dpo = dataclasses.replace(plan.dpo, epochs=3, learning_rate=learning_rate, early_stopping=stopping)
    return dataclasses.replace(plan, dpo=dpo)


@pytest.mark.parametrize("changes", [{}, {"lora": LoraPlan(rank=2), "precision": "bf16"}], ids=["full", "lora"])
def test_the_best_evaluation_is_published(changes: dict[str, object], world: World) -> None:
    rate = 0.05 if changes else 0.003
    name = f"best-{len(changes)}"
    plan = spoilt(world, name, learning_rate=rate, checkpoint_every_steps=1, **changes)
    observer = RecordingObserver()
    result = run(plan, observer)
    losses = {point.step: point.values["loss"] for point in observer.points if point.split == "validation"}
    best = min(losses, key=lambda step: losses[step] or 0.0)
    assert 0 < best < max(losses), "the run is to get better and then worse"
    assert result.step == best
    assert result.evaluation["loss"] == losses[best]
    assert observer.answers[-1][0] == best
    results = result.summary["results"]
    assert isinstance(results, dict)
    assert (results["step"], results["held_out"]["num_rows"]) == (best, 5)
    assert results["held_out"]["loss"]["value"] == pytest.approx(losses[best], rel=1e-6)
    assert results["training"]["num_rows"] == 11, "a whole epoch, not the last batch of three"
    assert ("info", "best_restored") in observer.events
    kept = next(ref for ref in observer.checkpoints if (ref.stage, ref.step) == (Stage.DPO, best))
    assert kept.policy_dir is not None
    assert tree_bytes(kept.policy_dir)["model.safetensors"] == tree_bytes(result.policy_dir)["model.safetensors"]
    pieces, seen = run_with_stops(dataclasses.replace(plan, work_dir=str(world.directory / f"{name}-piece")), 5)
    assert untimed(seen.points) == untimed(observer.points)
    assert tree_bytes(pieces.policy_dir) == tree_bytes(result.policy_dir)
    assert (pieces.evaluation, pieces.step, pieces.summary) == (result.evaluation, result.step, result.summary)
    assert pieces.pairs_file is not None
    assert result.pairs_file is not None
    assert pieces.pairs_file.read_text() == result.pairs_file.read_text()


def test_resumed_from_the_last_checkpoint_the_best_is_still_there(world: World) -> None:
    plan = spoilt(world, "end")
    observer = RecordingObserver()
    result = run(plan, observer)
    last = observer.checkpoints[-1]
    assert (last.directory / "best.safetensors").is_file()
    rest = RecordingObserver()
    again = run(
        dataclasses.replace(plan, work_dir=str(world.directory / "end-rest"), resume_from=str(last.directory)), rest
    )
    assert rest.points == []
    assert tree_bytes(again.policy_dir) == tree_bytes(result.policy_dir)


@pytest.mark.slow
def test_two_processes_keep_their_parts_of_the_best(world: World) -> None:
    plan = dataclasses.replace(spoilt(world, "two"), num_devices=2)
    observer, rest = RecordingObserver(), RecordingObserver()
    result = run_on_ranks(plan, observer)
    last = observer.checkpoints[-1]
    assert len(list(last.directory.glob("best-*-of-00002.safetensors"))) == 2
    resumed = dataclasses.replace(plan, work_dir=f"{plan.work_dir}-rest", resume_from=str(last.directory))
    assert tree_bytes(run_on_ranks(resumed, rest).policy_dir) == tree_bytes(result.policy_dir)
    assert rest.points == []


def test_a_last_policy_that_is_the_best_is_published_as_it_is(world: World) -> None:
    observer = RecordingObserver()
    plan = dataclasses.replace(spoilt(world, "good"), validation_data=world.validation_data)
    result = run(plan, observer)
    assert result.step == observer.points[-1].step
    assert ("info", "best_restored") not in observer.events


def test_without_it_and_when_saved_by_hand_the_last_policy_is_published(world: World) -> None:
    last = run(spoilt(world, "last", dataclasses.replace(BEST, restore_best=False)), RecordingObserver())
    best = run(spoilt(world, "best"), RecordingObserver())
    assert last.step > best.step
    assert any(not torch.equal(tensor, weights(best)[name]) for name, tensor in weights(last).items())

    def save(observer: RecordingObserver) -> str:
        reached = [p.step for p in observer.points if p.split == "validation"]
        return "save" if reached and reached[-1] == last.step else "none"

    saved = run(spoilt(world, "saved", dataclasses.replace(BEST, patience=9)), RecordingObserver(save))  # type: ignore[arg-type]
    assert saved.step == last.step


def test_runs_that_do_not_ask_for_it_keep_nothing(world: World) -> None:
    observer = RecordingObserver()
    run(spoilt(world, "none", dataclasses.replace(BEST, restore_best=False)), observer)
    assert not list(Path(world.directory / "none").rglob("best*.safetensors"))
