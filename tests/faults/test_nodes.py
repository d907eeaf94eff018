"""Jobs on several nodes: what becomes of the attempt when one of them fails, goes, freezes or is to end."""

import json
import os
import signal
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from backends import PROJECT
from toy_jobs import (
    InProcessWorker,
    WorkerProcess,
    attempts_of,
    check_succeeded,
    checkpoints_of,
    children_of,
    events,
    is_alive,
    messages,
    submit_toy,
    view,
    wait_for,
    wait_for_status,
    wait_for_step,
)
from toy_nodes import LOOPBACKS, node_worker
from toy_trainer import Script

from core.services.backend import Backend
from core.services.jobs import steering
from core.services.jobs.logs import read_log
from core.settings import Settings
from core.storage.trees import read_manifest

SHORT = Script(steps=6, checkpoint_every=2)
HELD = Script(steps=20, step_seconds=0.05, checkpoint_every=4, hold_at={"1": 9})
TIMES = {"lease_seconds": 1.5, "heartbeat_seconds": 0.2, "sweep_seconds": 0.2}


def trainers(worker_dir: Path, backend: Backend) -> list[int]:
    """Process ids of the toy groups below this process whose work directory is a worker's."""
    found = []
    for pid in children_of(os.getpid()):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if any(word.startswith(str(worker_dir).encode()) for word in words):
            found.append(pid)
    return found


def newest(backend: Backend, job_id: str) -> tuple[str, int] | None:
    found = checkpoints_of(backend, job_id)
    return (found[-1].stage.value, found[-1].step) if found else None


def is_lead(worker: InProcessWorker) -> bool:
    """Whether a worker runs node 0 of a job."""
    for folder in worker.work_dirs():
        path = folder / "assignment.json"
        if path.exists() and json.loads(path.read_text())["node"] == 0:
            return True
    return False


def outcomes(backend: Backend, job_id: str) -> list[str]:
    return [str(attempt.outcome and attempt.outcome.value) for attempt in attempts_of(backend, job_id)]


def test_a_job_on_two_nodes(backend: Backend) -> None:
    """Both store their files of the checkpoints; then both take jobs on one node."""
    with node_worker(backend, 0), node_worker(backend, 1):
        job_id = submit_toy(backend, SHORT, nodes=2)
        wait_for_status(backend, job_id, "succeeded", "failed")
        check_succeeded(backend, job_id, SHORT)
        (started,) = [event for event in events(backend, job_id) if event.kind == "started"]
        assert "started on 2 nodes" in started.message
        assert len(started.data["nodes"]) == 2
        newest = checkpoints_of(backend, job_id)[-1]
        names = [file.path for file in read_manifest(backend.store, newest.tree)]
        assert names == ["state.json", "weights-of-node-1.bin", "weights.bin"]
        singles = [submit_toy(backend, SHORT) for _ in range(4)]
        for single in singles:
            wait_for_status(backend, single, "succeeded", "failed")
        assert {attempts_of(backend, single)[0].worker for single in singles} == {"worker-0", "worker-1"}


def test_a_worker_without_an_address_takes_none(backend: Backend) -> None:
    with InProcessWorker(backend), node_worker(backend, 1):
        job_id = submit_toy(backend, SHORT, nodes=2)
        single = submit_toy(backend, SHORT)
        wait_for_status(backend, single, "succeeded")
        assert view(backend, job_id).status.value == "queued"


@pytest.mark.parametrize("who", ["node 0", "node 1"])
def test_a_trainer_that_is_killed_ends_the_attempt_on_all(who: str, backend: Backend) -> None:
    job_id = submit_toy(backend, HELD, nodes=2)
    with node_worker(backend, 0) as one, node_worker(backend, 1) as other:
        wait_for_step(backend, job_id, "dpo", 9)
        wait_for(lambda: newest(backend, job_id) == ("dpo", 8), "the checkpoint of step 8")
        lead, member = (one, other) if is_lead(one) else (other, one)
        (victim,) = trainers((lead if who == "node 0" else member).scratch._mine, backend)
        os.kill(victim, signal.SIGKILL)
        wait_for_status(backend, job_id, "succeeded", "failed")
    check_succeeded(backend, job_id, HELD)
    assert outcomes(backend, job_id) == ["crashed", "succeeded"]
    assert attempts_of(backend, job_id)[1].resume_step == 8
    (told,) = [event.message for event in events(backend, job_id) if event.kind == "requeued"]
    assert "It was killed (SIGKILL)" in told
    assert ("On node 1" in told) is (who == "node 1")
    if who == "node 1":
        log = read_log(backend, PROJECT, job_id).text
        assert "=== attempt 1, node 1 (" in log
        assert "\nnode 1 of the toy group\n" in log


def test_cancel_pause_and_resume(backend: Backend) -> None:
    with node_worker(backend, 0) as one, node_worker(backend, 1) as other:
        job_id = submit_toy(backend, HELD, nodes=2)
        wait_for_step(backend, job_id, "dpo", 9)
        steering.pause(backend, PROJECT, job_id)
        wait_for_status(backend, job_id, "paused")
        assert newest(backend, job_id) == ("dpo", 9)
        assert "weights-of-node-1.bin" in [
            file.path for file in read_manifest(backend.store, checkpoints_of(backend, job_id)[-1].tree)
        ]
        wait_for(lambda: not one.work_dirs() and not other.work_dirs(), "both workers to be free")
        steering.resume(backend, PROJECT, job_id)
        wait_for_status(backend, job_id, "succeeded", "failed")
        check_succeeded(backend, job_id, HELD)
        cancelled = submit_toy(backend, HELD, nodes=2)
        wait_for_step(backend, cancelled, "dpo", 9)
        steering.cancel(backend, PROJECT, cancelled)
        wait_for_status(backend, cancelled, "cancelled")
        wait_for(lambda: not one.work_dirs() and not other.work_dirs(), "both workers to be free")


def test_a_worker_that_is_to_end_hands_the_job_back_at_a_checkpoint(backend: Backend) -> None:
    job_id = submit_toy(backend, HELD, nodes=2)
    with ExitStack() as stack:
        one, other = stack.enter_context(node_worker(backend, 0)), stack.enter_context(node_worker(backend, 1))
        wait_for_step(backend, job_id, "dpo", 9)
        member = other if is_lead(one) else one
        member.drain.begin()
        wait_for(lambda: outcomes(backend, job_id)[:1] == ["drained"], "the job to be handed back")
        stack.enter_context(node_worker(backend, 2))
        wait_for_status(backend, job_id, "succeeded", "failed")
    check_succeeded(backend, job_id, HELD)
    assert attempts_of(backend, job_id)[1].resume_step == 9


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_a_node_that_is_gone_or_frozen_ends_the_attempt_within_a_lease(
    how: str, backend: Backend, tmp_path: Path
) -> None:
    """A worker process of its own is node 1; what was frozen publishes nothing, and its trainer is ended."""
    job_id = submit_toy(backend, HELD, nodes=2)
    waits = {"worker_name": "first", "node_address": LOOPBACKS[1], "confine_children": False, **TIMES}
    with WorkerProcess(backend, tmp_path / "first.log", **waits) as first, ExitStack() as stack:
        wait_for(lambda: member_names(backend) == {"first"}, "the worker to wait for the others")
        stack.enter_context(node_worker(backend, 0))
        wait_for_step(backend, job_id, "dpo", 9)
        wait_for(lambda: newest(backend, job_id) == ("dpo", 8), "the checkpoint of step 8")
        assert attempts_of(backend, job_id)[0].worker == "worker-0"
        children = children_of(first.pid)
        first.send(signal.SIGKILL if how == "killed" else signal.SIGSTOP)
        stack.enter_context(node_worker(backend, 2))
        wait_for(lambda: len(attempts_of(backend, job_id)) == 2, "the next attempt")
        wait_for_status(backend, job_id, "succeeded", "failed")
        first.send(signal.SIGCONT) if how == "frozen" else None
        wait_for(lambda: not any(is_alive(child) for child in children), "the old trainers to end")
    check_succeeded(backend, job_id, HELD)
    assert outcomes(backend, job_id) == ["lost", "succeeded"]
    assert any("node 1" in message and "stopped responding" in message for message in messages(backend, job_id))
    assert attempts_of(backend, job_id)[1].resume_step == 8


@pytest.mark.parametrize("point", ["node.assignment_written", "node.trainer_started", "part.stored"])
def test_a_node_that_is_killed_at_a_point_of_its_own_loses_nothing(
    point: str, backend: Backend, tmp_path: Path
) -> None:
    calm = {"lease_seconds": 5.0}  # else a busy machine replaces the attempt before the point is reached
    known = backend.settings.model_dump(include=backend.settings.model_fields_set)
    backend = replace(backend, settings=Settings(**known | calm))
    job_id = submit_toy(backend, SHORT, nodes=2)
    waits = {"worker_name": "first", "node_address": LOOPBACKS[1], "confine_children": False, **TIMES, **calm}
    with (
        WorkerProcess(backend, tmp_path / "first.log", **waits, failpoints=f"{point}=kill") as first,
        ExitStack() as stack,
    ):
        wait_for(lambda: member_names(backend) == {"first"}, "the worker to wait for the others")
        stack.enter_context(node_worker(backend, 0))
        wait_for(lambda: not first.is_running, "the worker to be killed")
        stack.enter_context(node_worker(backend, 2))
        wait_for_status(backend, job_id, "succeeded", "failed")
    check_succeeded(backend, job_id, SHORT)
    assert outcomes(backend, job_id) == ["lost", "succeeded"]


def member_names(backend: Backend) -> set[str]:
    with backend.database.engine.connect() as connection:
        return {row[0] for row in connection.exec_driver_sql("SELECT worker FROM gang_members")}


def test_a_node_whose_inputs_cannot_be_staged_says_so(backend: Backend, tmp_path: Path) -> None:
    """Node 1 lacks the base model, which only the other machine has."""
    settings = {"models_dir": tmp_path / "no-models", "worker_name": "poor", "node_address": LOOPBACKS[1], **TIMES}
    (tmp_path / "no-models").mkdir()
    job_id = submit_toy(backend, SHORT, nodes=2)
    with WorkerProcess(backend, tmp_path / "poor.log", **settings):
        wait_for(lambda: member_names(backend) == {"poor"}, "the worker to wait for the others")
        with node_worker(backend, 0):
            wait_for(lambda: outcomes(backend, job_id)[:1] not in ([], ["None"]), "the end of the attempt")
            assert outcomes(backend, job_id)[0] == "crashed"
            assert any("On node 1" in message for message in messages(backend, job_id))
