"""T14: stopped at any boundary of any stage and resumed, a run ends with the bytes and points of one never stopped."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import RecordingObserver, World, run_with_stops, stop_at_poll, tree_bytes, untimed

from core.training.failures import TrainingStopped
from core.training.observer import Stage
from core.training.pipeline import run
from core.training.plan import LoraPlan, TrainingPlan


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("world"))


def with_optimizer(plan: TrainingPlan, name: str) -> TrainingPlan:
    def changed(stage: Any) -> Any:
        return dataclasses.replace(stage, optimizer=name, weight_decay=0.1)

    return dataclasses.replace(plan, sft=changed(plan.sft), dpo=changed(plan.dpo))


CASES = {
    "full-fp32-adamw": ({}, "adamw"),
    "full-bf16-rmsprop": ({"precision": "bf16"}, "rmsprop"),
    "lora-fp32-rmsprop": ({"lora": LoraPlan(rank=2, dropout=0.2)}, "rmsprop"),
    "lora-bf16-adamw": ({"lora": LoraPlan(rank=2, dropout=0.2), "precision": "bf16"}, "adamw"),
}


@pytest.mark.parametrize("case", CASES)
def test_stopped_at_every_boundary_or_never(case: str, world: World) -> None:
    """Every leg ends at its fourth poll: after two or three steps, an evaluation, a few groups of the reference."""
    changes, optimizer = CASES[case]
    plan = with_optimizer(world.plan(f"{case}-whole", **changes), optimizer)
    observer = RecordingObserver()
    whole = run(plan, observer)
    pieces, seen = run_with_stops(dataclasses.replace(plan, work_dir=str(world.directory / f"{case}-piece")), 4)
    assert untimed(seen.points) == untimed(observer.points)
    assert tree_bytes(pieces.policy_dir) == tree_bytes(whole.policy_dir)
    assert pieces.pairs_file is not None
    assert whole.pairs_file is not None
    assert pieces.pairs_file.read_text() == whole.pairs_file.read_text()
    assert (pieces.evaluation, pieces.samples, pieces.step) == (whole.evaluation, whole.samples, whole.step)
    assert pieces.summary == whole.summary
    assert whole.summary["drift"]


@pytest.mark.parametrize("variant", ["simpo", "aot"])
def test_objectives_of_every_kind_resume(variant: str, world: World) -> None:
    plan = world.plan(f"{variant}-whole", variant=variant, sft=None)
    observer = RecordingObserver()
    whole = run(plan, observer)
    pieces, seen = run_with_stops(dataclasses.replace(plan, work_dir=str(world.directory / f"{variant}-piece")), 5)
    assert untimed(seen.points) == untimed(observer.points)
    assert tree_bytes(pieces.policy_dir) == tree_bytes(whole.policy_dir)


def test_a_planned_pause_lies_at_an_evaluation_and_changes_nothing(tmp_path: Path) -> None:
    world = World.make(tmp_path, num_train=9, num_validation=3)
    plan = world.plan("whole", evaluate_every_steps=2)
    observer = RecordingObserver()
    whole = run(plan, observer)
    legs: list[RecordingObserver] = []
    resume = None
    for share in (0.1, 0.1, 0.5):  # the second time it pauses where it is, as after a kill
        legs.append(RecordingObserver())
        piece = dataclasses.replace(plan, work_dir=str(tmp_path / f"{len(legs)}"), resume_from=resume)
        with pytest.raises(TrainingStopped) as stopped:
            run(dataclasses.replace(piece, pause_at_share=share), legs[-1])
        assert stopped.value.is_planned
        if legs[-1].checkpoints:
            resume = str(legs[-1].checkpoints[-1].directory)
    total = max(point.step for point in observer.points if point.stage == "dpo")
    places = [(leg.points[-1].split, leg.points[-1].step) for leg in (legs[0], legs[2])]
    assert places == [("validation", 2), ("validation", 2 * -(-total // 4))]
    assert legs[1].points == []
    rest = RecordingObserver()
    end = run(dataclasses.replace(plan, work_dir=str(tmp_path / "rest"), resume_from=resume), rest)
    assert tree_bytes(end.policy_dir) == tree_bytes(whole.policy_dir)
    seen = [point for leg in (*legs, rest) for point in leg.points]
    assert untimed(seen) == untimed(observer.points)


def test_every_single_poll_is_a_point_to_resume_from(tmp_path: Path) -> None:
    """One stop each, at the first poll, the second … to the last; each resumed run goes through to the end."""
    world = World.make(tmp_path, num_train=6, num_validation=3)
    plan = world.plan("whole", evaluate_every_steps=1)
    plan = dataclasses.replace(plan, dpo=dataclasses.replace(plan.dpo, epochs=1))
    observer = RecordingObserver()
    expected = tree_bytes(run(plan, observer).policy_dir)
    stages = set()
    for number in range(1, observer.num_polls + 1):
        stopped = RecordingObserver(stop_at_poll(number))
        with pytest.raises(TrainingStopped):
            run(dataclasses.replace(plan, work_dir=str(tmp_path / f"{number}")), stopped)
        checkpoint = stopped.checkpoints[-1]
        stages.add(checkpoint.stage)
        rest = RecordingObserver()
        resumed = dataclasses.replace(
            plan, work_dir=str(tmp_path / f"{number}-rest"), resume_from=str(checkpoint.directory)
        )
        assert tree_bytes(run(resumed, rest).policy_dir) == expected
        assert untimed([*stopped.points, *rest.points]) == untimed(observer.points)
    assert stages == {Stage.SFT, Stage.REFERENCE, Stage.DPO}


def test_a_periodic_checkpoint_resumes_after_a_crash(world: World) -> None:
    """What was emitted after the checkpoint is emitted again, equal."""
    plan = world.plan("crash-whole", checkpoint_every_steps=2)
    observer = RecordingObserver()
    expected = tree_bytes(run(plan, observer).policy_dir)
    middle = next(ref for ref in observer.checkpoints if (ref.stage, ref.step) == (Stage.DPO, 4))
    rest = RecordingObserver()
    resumed = dataclasses.replace(plan, work_dir=str(world.directory / "crash-rest"), resume_from=str(middle.directory))
    assert tree_bytes(run(resumed, rest).policy_dir) == expected
    replayed = [point for point in observer.points if point.stage == "dpo" and point.step > 4]
    assert untimed(rest.points) == untimed(replayed)


def test_checkpoints_are_the_same_bytes_again(world: World) -> None:
    """The checkpoint a resumed run writes at step 4 is that of the uninterrupted one, so resuming loses nothing."""
    plan = world.plan("again-whole", checkpoint_every_steps=2, lora=LoraPlan(rank=2))
    observer = RecordingObserver()
    run(plan, observer)
    by_step = {ref.step: ref.directory for ref in observer.checkpoints if ref.stage is Stage.DPO}
    rest = RecordingObserver()
    run(dataclasses.replace(plan, work_dir=str(world.directory / "again-rest"), resume_from=str(by_step[2])), rest)
    again = {ref.step: ref.directory for ref in rest.checkpoints}
    assert tree_bytes(again[4]) == tree_bytes(by_step[4])


def test_a_checkpoint_needs_nothing_but_base_model_and_data(world: World) -> None:
    """Not the work directory, not the SFT output, not the reference: they may lie on a machine that is gone."""
    plan = world.plan("alone-whole", checkpoint_every_steps=2)
    observer = RecordingObserver()
    expected = tree_bytes(run(plan, observer).policy_dir)
    middle = next(ref for ref in observer.checkpoints if (ref.stage, ref.step) == (Stage.DPO, 2))
    kept = middle.directory.rename(world.directory / "alone-kept")
    _remove(Path(plan.work_dir))
    resumed = dataclasses.replace(plan, work_dir=str(world.directory / "alone-rest"), resume_from=str(kept))
    assert tree_bytes(run(resumed, RecordingObserver()).policy_dir) == expected


def _remove(directory: Path) -> None:
    for path in sorted(directory.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
