"""Whole worker processes, killed, frozen and stopped: the job survives, its result is that of an undisturbed run."""

import signal
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from toy_jobs import (
    InProcessWorker,
    WorkerProcess,
    attempts_of,
    check_succeeded,
    children_of,
    events,
    is_alive,
    process_state,
    submit_toy,
    view,
    wait_for,
    wait_for_status,
    wait_for_step,
)
from toy_trainer import Script

from core.services.backend import Backend
from worker.pulse import TOUCH_SECONDS

SLOW = Script(steps=40, step_seconds=0.04, checkpoint_every=4, hold_at={"1": 20})
TIMES = {"lease_seconds": 1.5, "heartbeat_seconds": 0.2, "sweep_seconds": 0.2}


def freeze(worker: WorkerProcess, backend: Backend) -> None:
    """Outside of a transaction: one frozen inside would keep SQLite locked for all, which no real machine does."""
    path = backend.database.engine.url.database
    assert path is not None
    for _ in range(100):
        worker.send(signal.SIGSTOP)
        wait_for(lambda: process_state(worker.pid) == "T", "the process to stop")
        try:
            with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
            return
        except sqlite3.OperationalError:
            worker.send(signal.SIGCONT)
            time.sleep(0.01)
    raise AssertionError("the worker was always in a transaction")


def outcomes(backend: Backend, job_id: str) -> list[str]:
    return [str(attempt.outcome and attempt.outcome.value) for attempt in attempts_of(backend, job_id)]


def test_another_worker_takes_over_from_one_that_was_killed(backend: Backend, tmp_path: Path) -> None:
    job_id = submit_toy(backend, SLOW)
    with (
        WorkerProcess(backend, tmp_path / "first.log", worker_name="first", **TIMES) as first,
        WorkerProcess(backend, tmp_path / "second.log", worker_name="second", **TIMES) as second,
    ):
        wait_for_step(backend, job_id, "dpo", 2)
        holder = attempts_of(backend, job_id)[0].worker
        killed, other = (first, second) if holder == "first" else (second, first)
        trainers = children_of(killed.pid)
        assert len(trainers) == 1
        start = time.monotonic()
        killed.send(signal.SIGKILL)
        killed.wait()
        wait_for(lambda: not is_alive(trainers[0]), "the orphaned trainer to end", 8)
        wait_for(lambda: len(attempts_of(backend, job_id)) == 2, "the next attempt")
        assert time.monotonic() - start < TIMES["lease_seconds"] * 2 + 2
        wait_for_status(backend, job_id, "succeeded", "failed")
        check_succeeded(backend, job_id, SLOW)
        assert outcomes(backend, job_id) == ["lost", "succeeded"]
        assert attempts_of(backend, job_id)[1].resume_stage is not None
        other.send(signal.SIGTERM)
        assert other.wait() == 0


def test_a_frozen_worker_is_fenced_when_it_wakes(backend: Backend, tmp_path: Path) -> None:
    script = Script(steps=60, step_seconds=0.05, checkpoint_every=5, hold_at={"1": 20})
    job_id = submit_toy(backend, script)
    with WorkerProcess(backend, tmp_path / "zombie.log", worker_name="zombie", **TIMES) as zombie:
        wait_for_step(backend, job_id, "sft", 3)
        frozen = [zombie.pid, *children_of(zombie.pid)]
        freeze(zombie, backend)
        with WorkerProcess(backend, tmp_path / "other.log", worker_name="other", **TIMES):
            wait_for(lambda: len(attempts_of(backend, job_id)) == 2, "the next attempt")
            zombie.send(signal.SIGCONT)
            wait_for(lambda: not is_alive(frozen[1]), "the zombie's trainer to be killed", 5)
            wait_for_status(backend, job_id, "succeeded", "failed")
    check_succeeded(backend, job_id, script)
    assert outcomes(backend, job_id) == ["lost", "succeeded"]
    assert attempts_of(backend, job_id)[1].worker == "other"
    late = [event for event in events(backend, job_id) if event.attempt == 2 and event.actor == "zombie"]
    assert late == []


def test_sigterm_finishes_the_step_and_exits_with_0(backend: Backend, tmp_path: Path) -> None:
    job_id = submit_toy(backend, SLOW)
    with WorkerProcess(backend, tmp_path / "worker.log", **TIMES) as worker:
        wait_for_step(backend, job_id, "sft", 6)
        trainers = children_of(worker.pid)
        start = time.monotonic()
        worker.send(signal.SIGTERM)
        assert worker.wait() == 0
        assert time.monotonic() - start < 15
    assert view(backend, job_id).status.value == "queued"
    assert outcomes(backend, job_id) == ["drained"]
    assert not any(is_alive(pid) for pid in trainers)
    assert not list((backend.settings.scratch_dir / "workers").iterdir())


def test_the_next_worker_removes_what_a_killed_one_left(backend: Backend, tmp_path: Path) -> None:
    job_id = submit_toy(backend, SLOW)
    scratch = backend.settings.scratch_dir / "workers"
    with WorkerProcess(backend, tmp_path / "first.log", **TIMES) as first:
        wait_for_step(backend, job_id, "sft", 2)
        (left,) = scratch.iterdir()
        first.send(signal.SIGKILL)
        first.wait()
        assert left.exists()
        with WorkerProcess(backend, tmp_path / "second.log", **TIMES):
            wait_for(lambda: not left.exists(), "the leftovers to go")
            wait_for_status(backend, job_id, "succeeded", "failed")
    check_succeeded(backend, job_id, SLOW)


def test_the_pulse_stops_with_a_worker_that_stands_still(backend: Backend, tmp_path: Path) -> None:
    """What the health check of docker-compose.yml looks at: how old the file is."""
    pulse = tmp_path / "pulse"

    def age() -> float:
        return time.time() - pulse.stat().st_mtime

    with WorkerProcess(backend, tmp_path / "worker.log", pulse_path=pulse, **TIMES) as worker:
        wait_for(lambda: pulse.exists() and age() < 1, "the pulse")
        freeze(worker, backend)
        wait_for(lambda: age() > 3 * TOUCH_SECONDS, "the pulse to grow old")
        worker.send(signal.SIGCONT)
        wait_for(lambda: age() < TOUCH_SECONDS, "the pulse again")
        worker.send(signal.SIGTERM)
        assert worker.wait() == 0
    assert not pulse.exists(), "a worker that has ended has none"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_worker_stops_at_once(backend: Backend, tmp_path: Path, number: signal.Signals) -> None:
    with WorkerProcess(backend, tmp_path / "worker.log", broker_url="files", **TIMES) as worker:
        wait_for(lambda: "is up" in worker.log.read_text(), "the worker to start")
        start = time.monotonic()
        worker.send(number)
        assert worker.wait() == 0
        assert time.monotonic() - start < 12


def test_a_trainer_that_is_still_loading_may_be_stopped_for_free(backend: Backend) -> None:
    """It reads no wish yet and cannot catch the SIGTERM that follows: its end by that is no crash."""
    # Where it may write: it is confined to the directory of its attempt.
    command = (sys.executable, "-c", "import time; open('started', 'w'); time.sleep(600)")
    with InProcessWorker(backend, command):
        job_id = submit_toy(backend)
        scratch = backend.settings.scratch_dir
        wait_for(lambda: any(scratch.rglob("started")), "the trainer to start")
    assert [attempt.outcome for attempt in attempts_of(backend, job_id)] == ["drained"]
