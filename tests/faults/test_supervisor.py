"""One worker and its trainer: what each way to end, and each fault, makes of a job."""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import pytest
from backends import PROJECT
from sqlalchemy.orm import Session
from toy_jobs import (
    InProcessWorker,
    attempts_of,
    check_succeeded,
    checkpoints_of,
    children_of,
    events,
    is_alive,
    messages,
    points,
    submit_toy,
    view,
    wait_for,
    wait_for_status,
    wait_for_step,
)
from toy_trainer import Script, expected_weights

from core import failpoints
from core.database.session import Database, DatabaseUnavailable
from core.database.tables.records import JobEvent
from core.services.attempts import lifecycle
from core.services.backend import Backend
from core.services.jobs import artifacts, steering
from core.services.operations import sweep
from core.storage.local import LocalObjectStore
from core.storage.object_store import StoreUnavailable

Result = TypeVar("Result")
SLOW = Script(steps=40, step_seconds=0.02, checkpoint_every=5)


HELD = replace(SLOW, hold_at={"1": 15})
"""Its first attempt waits behind a checkpoint for whatever is done to it."""


def outcomes(backend: Backend, job_id: str) -> list[str | None]:
    return [attempt.outcome.value if attempt.outcome else None for attempt in attempts_of(backend, job_id)]


def test_a_job_runs_to_its_artifact(backend: Backend) -> None:
    with InProcessWorker(backend) as worker:
        job_id = submit_toy(backend, Script())
        wait_for_status(backend, job_id, "succeeded", "failed")
        check_succeeded(backend, job_id, Script())
        wait_for(lambda: worker.work_dirs() == [], "the work directory to go")
    job = view(backend, job_id)
    assert job.attempt == 1
    assert job.spec["micro_batch_tokens"] == 4096  # as the trainer resolved it
    assert {stage.name.value: stage.status for stage in job.stages}["publishing"] == "finished"
    paths = {file.path for file in artifacts.get(backend, PROJECT, job_id).files}
    assert paths >= {"model.safetensors", "config.json", "README.md", "job.json", "metrics.jsonl", "SHA256SUMS"}
    assert paths >= {f"tensorboard/{run}-train/events.out.tfevents.0.preftune" for run in ("sft", "dpo")}


def test_metrics_are_visible_while_the_stage_runs(backend: Backend) -> None:
    script = replace(SLOW, step_seconds=0.1, steps=400)
    with InProcessWorker(backend):
        job_id = submit_toy(backend, script)
        wait_for(lambda: points(backend, job_id), "the first point")
        # Steps come every 0.1 s, the database knows each at most a second later.
        start, first = time.monotonic(), points(backend, job_id)[-1].step
        wait_for(lambda: points(backend, job_id)[-1].step >= first + 5, "five steps more")
        assert time.monotonic() - start < 6
        steering.cancel(backend, PROJECT, job_id)
        wait_for_status(backend, job_id, "cancelled")


def test_a_killed_trainer_goes_on_from_its_checkpoint(backend: Backend) -> None:
    script = Script(kill_at={"1": 8})
    with InProcessWorker(backend):
        job_id = submit_toy(backend, script)
        wait_for_status(backend, job_id, "succeeded", "failed")
    check_succeeded(backend, job_id, script)
    assert outcomes(backend, job_id) == ["crashed", "succeeded"]
    second = attempts_of(backend, job_id)[1]
    assert (second.resume_stage, second.resume_step) == ("dpo", 6)  # a checkpoint every 3 steps, killed at 8
    assert not [event for event in events(backend, job_id) if event.kind == "resume_divergence"]


def test_a_trainer_that_always_crashes_ends_as_crash_loop(backend: Backend) -> None:
    with InProcessWorker(backend):
        job_id = submit_toy(backend, Script(kill_at={"*": 2}, checkpoint_every=1000))
        job = wait_for_status(backend, job_id, "failed", "succeeded")
    assert job.error is not None
    assert job.error.code == "crash_loop"
    assert "SIGKILL" in job.error.detail
    assert outcomes(backend, job_id) == ["crashed"] * 3


def test_checkpoints_between_crashes_forgive_them(backend: Backend) -> None:
    """Four crashes, each behind a new checkpoint: no crash loop."""
    script = Script(kill_at={"1": 2, "2": 4, "3": 6, "4": 8}, checkpoint_every=1)
    with InProcessWorker(backend):
        job_id = submit_toy(backend, script)
        wait_for_status(backend, job_id, "succeeded", "failed")
    check_succeeded(backend, job_id, script)
    assert outcomes(backend, job_id) == ["crashed"] * 4 + ["succeeded"]


def test_a_typed_failure_is_final(backend: Backend) -> None:
    failure = {"code": "non_finite_loss", "detail": "The loss of step 3 is NaN."}
    with InProcessWorker(backend):
        job_id = submit_toy(backend, Script(fail=failure))
        job = wait_for_status(backend, job_id, "failed")
    assert job.error is not None
    assert (job.error.code, job.error.detail) == (failure["code"], failure["detail"])
    assert job.attempt == 1


def test_nonsense_from_a_trainer_is_a_crash(backend: Backend) -> None:
    with InProcessWorker(backend):
        job_id = submit_toy(backend, Script(says_nonsense=True))
        wait_for(lambda: outcomes(backend, job_id)[:1] == ["crashed"], "the first crash")
        assert any("not a message" in message for message in messages(backend, job_id))
        steering.cancel(backend, PROJECT, job_id)
        wait_for_status(backend, job_id, "cancelled")


def test_cancel_stops_the_trainer(backend: Backend) -> None:
    with InProcessWorker(backend):
        job_id = submit_toy(backend, SLOW)
        wait_for_step(backend, job_id, "sft", 2)
        start = time.monotonic()
        steering.cancel(backend, PROJECT, job_id)
        wait_for_status(backend, job_id, "cancelled")
        assert time.monotonic() - start < 8  # a heartbeat and a step, on a machine that runs the other tests
    assert view(backend, job_id).artifact is None


def test_cancel_with_save_publishes_the_policy_as_it_is(backend: Backend) -> None:
    with InProcessWorker(backend):
        script = replace(SLOW, steps=300)
        job_id = submit_toy(backend, script)
        wait_for_step(backend, job_id, "sft", 3)
        steering.cancel(backend, PROJECT, job_id, save=True)
        job = wait_for_status(backend, job_id, "cancelled")
    assert job.artifact is not None
    assert points(backend, job_id)[-1].step < script.steps


def test_a_trainer_that_does_not_listen_is_killed(backend: Backend) -> None:
    deaf = replace(backend, settings=backend.settings.model_copy(update={"stop_grace_seconds": 0.5}))
    with InProcessWorker(deaf):
        job_id = submit_toy(deaf, replace(SLOW, steps=400, ignores_stop=True))
        wait_for_step(deaf, job_id, "sft", 1)
        steering.cancel(deaf, PROJECT, job_id)
        wait_for_status(deaf, job_id, "cancelled")
    assert points(deaf, job_id)[-1].step < 400


def test_a_trainer_that_does_not_go_is_killed_and_its_work_published(backend: Backend) -> None:
    impatient = replace(backend, settings=backend.settings.model_copy(update={"stop_grace_seconds": 0.5}))
    with InProcessWorker(impatient):
        job_id = submit_toy(impatient, Script(hangs_at_end=True))
        wait_for_status(impatient, job_id, "succeeded", "failed")
    check_succeeded(impatient, job_id, Script())


def test_pause_and_resume_lose_no_step(backend: Backend) -> None:
    script = replace(SLOW, hold_at={"1": 7})
    with InProcessWorker(backend):
        job_id = submit_toy(backend, script)
        wait_for_step(backend, job_id, "dpo", 7)
        steering.pause(backend, PROJECT, job_id)
        wait_for_status(backend, job_id, "paused")
        stopped_at = points(backend, job_id)[-1].step
        assert checkpoints_of(backend, job_id)[-1].step == stopped_at
        steering.resume(backend, PROJECT, job_id)
        wait_for_status(backend, job_id, "succeeded", "failed")
    check_succeeded(backend, job_id, script)
    assert attempts_of(backend, job_id)[1].resume_step == stopped_at


def test_a_draining_worker_hands_the_job_back(backend: Backend) -> None:
    script = replace(SLOW, hold_at={"1": 7})
    with InProcessWorker(backend):
        job_id = submit_toy(backend, script)
        wait_for_step(backend, job_id, "dpo", 7)
    assert view(backend, job_id).status.value == "queued"
    stopped_at = points(backend, job_id)[-1].step
    assert checkpoints_of(backend, job_id)[-1].step == stopped_at
    with InProcessWorker(backend):
        wait_for_status(backend, job_id, "succeeded", "failed")
    check_succeeded(backend, job_id, script)
    assert outcomes(backend, job_id) == ["drained", "succeeded"]


def test_the_runtime_limit_ends_a_job_with_a_checkpoint(backend: Backend) -> None:
    with InProcessWorker(backend):
        job_id = submit_toy(backend, replace(SLOW, step_seconds=0.05), max_runtime_seconds=1)
        job = wait_for_status(backend, job_id, "failed", "succeeded")
    assert job.error is not None
    assert job.error.code == "runtime_exceeded"
    assert checkpoints_of(backend, job_id)[-1].step == points(backend, job_id)[-1].step


@pytest.mark.parametrize("damage", ["flip", "delete", "truncate_manifest"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(backend: Backend, damage: str) -> None:
    with InProcessWorker(backend):
        job_id = submit_toy(backend, HELD)
        wait_for(lambda: 15 in [one.step for one in checkpoints_of(backend, job_id)][1:], "its checkpoint")
        steering.pause(backend, PROJECT, job_id)
        wait_for_status(backend, job_id, "paused")
        older, newest = checkpoints_of(backend, job_id)[-2:]
        if damage == "flip":
            content = bytearray(backend.store.get_bytes(newest.prefix + "weights.bin"))
            content[5] ^= 1
            backend.store.put_bytes(newest.prefix + "weights.bin", bytes(content))
        elif damage == "delete":
            backend.store.delete(newest.prefix + "state.json")
        else:
            manifest = backend.store.get_bytes(newest.prefix + "manifest.json")
            backend.store.put_bytes(newest.prefix + "manifest.json", manifest[:-5])
        steering.resume(backend, PROJECT, job_id)
        wait_for_status(backend, job_id, "succeeded", "failed")
    check_succeeded(backend, job_id, HELD)
    assert attempts_of(backend, job_id)[1].resume_step == older.step
    assert "checkpoint_corrupt" in [event.kind for event in events(backend, job_id)]


def test_a_checkpoint_that_the_engine_refuses_is_set_aside_within_the_attempt(backend: Backend) -> None:
    script = Script(kill_at={"1": 8}, refuses_checkpoints=True)
    with InProcessWorker(backend):
        job_id = submit_toy(backend, script)
        wait_for_status(backend, job_id, "succeeded", "failed")
    check_succeeded(backend, job_id, script)
    assert outcomes(backend, job_id) == ["crashed", "succeeded"]
    assert [event.kind for event in events(backend, job_id)].count("checkpoint_corrupt") == 2  # all that were kept


def test_a_worker_without_space_for_a_work_directory_hands_the_job_back_and_lives(backend: Backend) -> None:
    failpoints.arm("attempt.directory_made=enospc@1")
    try:
        with InProcessWorker(backend):
            job_id = submit_toy(backend, Script())
            wait_for_status(backend, job_id, "succeeded", "failed")
    finally:
        failpoints.arm("")
    check_succeeded(backend, job_id, Script())
    assert outcomes(backend, job_id) == ["crashed", "succeeded"]
    assert any("disk is full" in message for message in messages(backend, job_id))


def test_a_replaced_attempt_stops_its_trainer_and_publishes_nothing(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    with InProcessWorker(backend) as first:
        job_id = submit_toy(backend, SLOW)
        wait_for_step(backend, job_id, "sft", 3)
        (work_dir,) = first.work_dirs()
        lease = next(iter(sweep.list_leases(backend)))
        while not sweep.expire(backend, lease):  # a heartbeat may come between
            lease = next(iter(sweep.list_leases(backend)))
        claim = lifecycle.claim(backend, worker="other", host="other", device="cpu")
        while claim is None:  # handed back with a pause, or taken by the worker itself
            claim = lifecycle.claim(backend, worker="other", host="other", device="cpu")
        wait_for(lambda: work_dir not in first.work_dirs(), "the replaced attempt to end")
        num_points = len(points(backend, job_id))
        time.sleep(0.3)
        assert len(points(backend, job_id)) == num_points
        lifecycle.release(claim, lifecycle.AttemptOutcome.DRAINED)
        wait_for_status(backend, job_id, "succeeded", "failed")
    check_succeeded(backend, job_id, SLOW)
    assert len([event for event in events(backend, job_id) if event.kind == "succeeded"]) == 1
    assert not [record for record in caplog.records if record.exc_info], "being replaced is no error"


def test_an_equal_job_takes_over_the_finished_stage(backend: Backend) -> None:
    with InProcessWorker(backend):
        first = submit_toy(backend, Script())
        wait_for_status(backend, first, "succeeded", "failed")
        second = submit_toy(backend, Script())
        job = wait_for_status(backend, second, "succeeded", "failed")
    stage = next(stage for stage in job.stages if stage.name.value == "sft")
    assert (stage.status, stage.reused_from) == ("reused", first)
    weights = next(f for f in artifacts.get(backend, PROJECT, second).files if f.path == "model.safetensors")
    rows = backend.store.get_bytes("projects/default/datasets/ds_1/rows.jsonl")
    assert backend.store.get_bytes(weights.key) == expected_weights(rows, Script())


class StumblingStore(LocalObjectStore):
    """Cannot store anything until told otherwise."""

    is_away = False

    def _put(self, key: str, write: Callable[..., object]) -> None:
        if self.is_away:
            raise StoreUnavailable("The store is away.")
        super()._put(key, write)


def test_training_goes_on_while_the_store_is_away(backend: Backend) -> None:
    store = StumblingStore(backend.store._root)  # type: ignore[attr-defined]
    stumbling = replace(backend, store=store)
    script = replace(SLOW, step_seconds=0.05, checkpoint_every=15)  # time to take the store away before the first one
    with InProcessWorker(stumbling):
        job_id = submit_toy(stumbling, script)
        wait_for(lambda: view(stumbling, job_id).stage == "sft", "training")
        store.is_away = True
        wait_for_step(stumbling, job_id, "dpo", 20)  # far beyond the first checkpoints
        assert checkpoints_of(stumbling, job_id) == []
        store.is_away = False
        wait_for_status(stumbling, job_id, "succeeded", "failed")
    check_succeeded(stumbling, job_id, script)
    assert [event.kind for event in events(stumbling, job_id)].count("upload_delayed") == 1


class StumblingDatabase(Database):
    is_away = False

    def _run(self, sessions: object, work: Callable[[Session], Result]) -> Result:
        if self.is_away:
            raise DatabaseUnavailable("The database is away.")
        return super()._run(sessions, work)  # type: ignore[arg-type]


def test_training_goes_on_while_the_database_is_away(backend: Backend) -> None:
    database = StumblingDatabase(backend.database.engine)
    stumbling = replace(backend, database=database)
    with InProcessWorker(stumbling):
        job_id = submit_toy(stumbling, SLOW)
        wait_for_step(backend, job_id, "sft", 2)
        database.is_away = True
        time.sleep(2)  # longer than the lease, and longer than all the training
        database.is_away = False
        wait_for_status(backend, job_id, "succeeded", "failed")
    check_succeeded(backend, job_id, SLOW)
    assert outcomes(backend, job_id) == ["succeeded"]  # nobody took the job away


def test_no_trainer_is_left_behind(backend: Backend) -> None:
    with InProcessWorker(backend):
        job_id = submit_toy(backend, SLOW)
        wait_for_step(backend, job_id, "sft", 1)
        pids = children_of(os.getpid())
        assert pids
    wait_for(lambda: not any(is_alive(pid) for pid in pids), "the trainers to end")
    check_curve_is_a_prefix(backend, job_id)


def check_curve_is_a_prefix(backend: Backend, job_id: str) -> None:
    steps = [(point.stage.value, point.step) for point in points(backend, job_id)]
    everything = [(stage, step) for stage in ("sft", "dpo") for step in range(1, SLOW.steps + 1)]
    assert steps == everything[: len(steps)]


def test_the_doctor_speaks_while_the_run_goes_on_and_once_per_job(backend: Backend) -> None:
    script = Script(steps=8, kill_at={"1": 6}, step_seconds=0.05)
    stage = {"learning_rate": 0.5, "warmup_steps": 1}
    job_id = submit_toy(backend, script, sft=stage, dpo=stage)
    with InProcessWorker(backend):
        wait_for(lambda: doctor_events(backend, job_id), "the doctor")
        assert view(backend, job_id).status.value == "running"
        wait_for_status(backend, job_id, "succeeded", "failed")
    check_succeeded(backend, job_id, script)
    assert len(attempts_of(backend, job_id)) == 2
    found = doctor_events(backend, job_id)
    assert [(event.data["rule"], event.data["stage"]) for event in found] == [
        ("learning-rate-far-from-presets", "sft"),
        ("learning-rate-far-from-presets", "dpo"),
    ]
    assert found[0].data["evidence"]["learning_rate"] == 0.5
    assert found[0].message.endswith(found[0].data["advice"])


def test_the_doctor_explains_a_loss_that_is_no_number(backend: Backend) -> None:
    script = Script(fail={"code": "non_finite_loss", "detail": "The loss is not finite."})
    job_id = submit_toy(backend, script, sft="skip", dpo={"warmup_steps": 1})
    with InProcessWorker(backend):
        wait_for_status(backend, job_id, "failed")
    assert [(event.level, event.data["rule"]) for event in doctor_events(backend, job_id)] == [
        ("error", "non-finite-loss")
    ]


def doctor_events(backend: Backend, job_id: str) -> list[JobEvent]:
    return [event for event in events(backend, job_id) if event.kind == "doctor"]


def test_equal_jobs_of_a_worker_compute_in_one_precision(backend: Backend) -> None:
    """The race between precisions may end otherwise each time; the first trainer's result holds for the worker."""
    with InProcessWorker(backend):
        found = []
        for measured in ("bf16", "fp32"):
            job_id = submit_toy(backend, Script(measures=measured))
            wait_for_status(backend, job_id, "succeeded", "failed")
            found.append(view(backend, job_id).spec["precision"])
    assert found == ["bf16", "bf16"]


def test_a_job_keeps_its_precision_on_another_worker(backend: Backend) -> None:
    with InProcessWorker(backend):
        job_id = submit_toy(backend, replace(HELD, measures="bf16"))
        wait_for_step(backend, job_id, "dpo", 15)
        steering.pause(backend, PROJECT, job_id)
        wait_for_status(backend, job_id, "paused")
    with InProcessWorker(backend) as other:
        other.place.precision.note("fp32")
        steering.resume(backend, PROJECT, job_id)
        wait_for_status(backend, job_id, "succeeded", "failed")
    assert view(backend, job_id).spec["precision"] == "bf16"
    assert outcomes(backend, job_id) == ["paused", "succeeded"]
