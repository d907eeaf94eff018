"""`preftune serve`: its children are started again when they die, and end when it does, however it ends."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import free_port
from toy_jobs import (
    ServiceProcess,
    attempts_of,
    check_succeeded,
    children_of,
    is_alive,
    submit_toy,
    view,
    wait_for,
    wait_for_status,
    wait_for_step,
)
from toy_trainer import Script

from core.services.backend import Backend

SLOW = Script(steps=40, step_seconds=0.05, checkpoint_every=4, hold_at={"1": 20})
LONG_LEASE = {"lease_seconds": 60, "heartbeat_seconds": 0.5, "sweep_seconds": 0.5, "poll_seconds": 0.3}
"""What is freed earlier was freed because the worker is known to be dead."""


def serve(backend: Backend, log: Path) -> ServiceProcess:
    return ServiceProcess("toy_serve.py", backend, log, port=free_port(), **LONG_LEASE)


def processes_below(service: ServiceProcess) -> list[int]:
    children = children_of(service.pid)
    return children + [pid for child in children for pid in children_of(child)]


def worker_of(service: ServiceProcess) -> int:
    """The child that has a trainer."""
    (worker,) = (child for child in children_of(service.pid) if children_of(child))
    return worker


@pytest.fixture
def service(backend: Backend, tmp_path: Path) -> Iterator[ServiceProcess]:
    with serve(backend, tmp_path / "serve.log") as process:
        wait_for(lambda: "ready: http://" in process.log.read_text(), "the service to be ready")
        yield process


def test_sigterm_ends_everything_and_hands_the_job_back(backend: Backend, service: ServiceProcess) -> None:
    job_id = submit_toy(backend, SLOW)
    wait_for_step(backend, job_id, "sft", 5)
    below = processes_below(service)
    assert len(below) >= 3  # API, worker, trainer
    start = time.monotonic()
    service.send(signal.SIGTERM)
    assert service.wait() == 0
    assert time.monotonic() - start < 20
    assert not any(is_alive(pid) for pid in below)
    assert view(backend, job_id).status.value == "queued"
    assert [attempt.outcome for attempt in attempts_of(backend, job_id)] == ["drained"]


def test_a_killed_worker_is_replaced_and_its_job_goes_on_at_once(backend: Backend, service: ServiceProcess) -> None:
    job_id = submit_toy(backend, SLOW)
    wait_for_step(backend, job_id, "dpo", 5)
    start = time.monotonic()
    os.kill(worker_of(service), signal.SIGKILL)
    wait_for(lambda: len(attempts_of(backend, job_id)) == 2, "the next attempt")
    assert time.monotonic() - start < 40  # a fresh worker process, not the lease of 60 s
    wait_for_status(backend, job_id, "succeeded", "failed")
    check_succeeded(backend, job_id, SLOW)
    assert [attempt.outcome for attempt in attempts_of(backend, job_id)] == ["lost", "succeeded"]


def test_children_end_when_the_service_is_killed_and_the_next_one_goes_on(
    backend: Backend, service: ServiceProcess, tmp_path: Path
) -> None:
    job_id = submit_toy(backend, SLOW)
    wait_for_step(backend, job_id, "dpo", 5)
    below = processes_below(service)
    os.kill(worker_of(service), signal.SIGKILL)  # its lease stays: nobody is left to free it
    service.send(signal.SIGKILL)
    service.wait()
    wait_for(lambda: not any(is_alive(pid) for pid in below), "the children to end", 10)
    with serve(backend, tmp_path / "next.log"):
        wait_for_status(backend, job_id, "succeeded", "failed")
    check_succeeded(backend, job_id, SLOW)


def test_a_second_service_on_the_same_data_is_refused(
    backend: Backend, service: ServiceProcess, tmp_path: Path
) -> None:
    with serve(backend, tmp_path / "second.log") as second:
        assert second.wait() == 1
        assert "another service uses" in second.log.read_text()
