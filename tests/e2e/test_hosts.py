"""Workers on machines of their own, which share URLs and a store's key with the API, and nothing else."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from deployments import Deployment, Servers, run_api
from servers import free_port
from toy_jobs import (
    TESTS,
    attempts_of,
    check_succeeded,
    checkpoints_of,
    messages,
    submit_toy,
    view,
    wait_for,
    wait_for_status,
)
from toy_trainer import Script

from core.services.backend import Backend, open_backend
from core.settings import load_settings

pytestmark = pytest.mark.timeout(900)  # on a busy machine

SLOW = Script(steps=40, step_seconds=0.1, checkpoint_every=4)
START_SECONDS = 240
"""Until a worker process is at work, on a busy machine."""


def toy_host(deployment: Deployment, name: str, **settings: str) -> AbstractContextManager[subprocess.Popen[bytes]]:
    return deployment.host(name, (sys.executable, str(TESTS / "toy_worker.py")), **settings)


@pytest.fixture(scope="module")
def deployment(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with run_api(tmp_path_factory.mktemp("hosts"), servers, LEASE_SECONDS="5", HEARTBEAT_SECONDS="0.5") as deployment:
        yield deployment


@pytest.fixture
def backend(deployment: Deployment) -> Iterator[Backend]:
    with backend_of(deployment) as backend:
        yield backend


@contextmanager
def backend_of(deployment: Deployment) -> Iterator[Backend]:
    """As the API process has it."""
    values: dict[str, Any] = {name.lower(): value for name, value in deployment.settings.items()}
    api = deployment.folder / "api"
    backend = open_backend(load_settings(**values, data_dir=api / "data", models_dir=api / "models"))
    yield backend
    backend.close()


def test_two_hosts_take_different_jobs(deployment: Deployment, backend: Backend, tmp_path: Path) -> None:
    script = replace(SLOW, hold_at={"1": 20}, hold_until=str(tmp_path))
    jobs = [submit_toy(backend, script, reuse=False) for _ in range(2)]
    patient = {"LEASE_SECONDS": "60"}  # whatever stops this machine for a while: nobody is to take over here
    with toy_host(deployment, "north", **patient), toy_host(deployment, "south", **patient):
        wait_for(lambda: all(is_running(backend, job_id) for job_id in jobs), "both to run at once", START_SECONDS)
        (tmp_path / "1").touch()
        for job_id in jobs:
            wait_for_status(backend, job_id, "succeeded", "failed", seconds=START_SECONDS)
            check_succeeded(backend, job_id, script)
    attempts = [attempt for job_id in jobs for attempt in attempts_of(backend, job_id)]
    assert {attempt.worker for attempt in attempts} == {"north", "south"}
    assert len(attempts) == 2, [messages(backend, job_id) for job_id in jobs]
    for name in ("north", "south"):
        assert not list((deployment.folder / name / "models").glob("*")), "its base model came out of the store"


def test_another_host_takes_over_from_one_that_is_gone(deployment: Deployment, backend: Backend) -> None:
    script = replace(SLOW, hold_at={"1": 22})
    job_id = submit_toy(backend, script, reuse=False)
    with toy_host(deployment, "east") as east:
        wait_for_status(backend, job_id, "running", seconds=START_SECONDS)
        wait_for(lambda: has_dpo_checkpoint(backend, job_id), "a checkpoint", START_SECONDS)
        with toy_host(deployment, "west"):
            east.send_signal(signal.SIGKILL)
            wait_for_status(backend, job_id, "succeeded", "failed", seconds=START_SECONDS)
    check_succeeded(backend, job_id, script)
    first, second = attempts_of(backend, job_id)
    assert (first.worker, second.worker) == ("east", "west")
    assert second.resume_stage == "dpo"


def is_running(backend: Backend, job_id: str) -> bool:
    return view(backend, job_id).status.value == "running"


def has_dpo_checkpoint(backend: Backend, job_id: str) -> bool:
    return any(checkpoint.stage.value == "dpo" for checkpoint in checkpoints_of(backend, job_id))


@pytest.mark.slow  # half a minute of starting processes; `make test` has it in tests/faults/test_outages.py
def test_jobs_start_although_redis_is_never_there(servers: Servers, tmp_path: Path) -> None:
    nobody = f"redis://127.0.0.1:{free_port()}/0"
    with (
        run_api(tmp_path, servers, BROKER_URL=nobody, POLL_SECONDS="1") as deployment,
        backend_of(deployment) as backend,
        toy_host(deployment, "only"),
    ):
        assert deployment.client.health()["status"] == "degraded"
        for _ in range(2):
            job_id = submit_toy(backend, Script(), reuse=False)
            wait_for_status(backend, job_id, "succeeded", "failed", seconds=START_SECONDS)
            check_succeeded(backend, job_id, Script())
        assert deployment.client.health()["broker"] == "down"
