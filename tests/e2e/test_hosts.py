"""Workers on machines of their own, which share URLs and a store's key with the API, and nothing else."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from deployments import Deployment, Servers, run_api
from servers import free_port
from toy_jobs import TESTS, attempts_of, check_succeeded, submit_toy, view, wait_for, wait_for_status, wait_for_step
from toy_trainer import Script

from core.services.backend import Backend, open_backend
from core.settings import load_settings

SLOW = Script(steps=60, step_seconds=0.1, checkpoint_every=4)
START_SECONDS = 90
"""Until a worker process is at work, on a busy machine."""
QUICK_LEASE = {"LEASE_SECONDS": "3", "HEARTBEAT_SECONDS": "0.3"}
NEVER_POLLS = {"POLL_SECONDS": "3600"}
"""Whatever starts then was woken."""


def toy_host(deployment: Deployment, name: str, **settings: str) -> AbstractContextManager[subprocess.Popen[bytes]]:
    return deployment.host(name, (sys.executable, str(TESTS / "toy_worker.py")), **settings)


@pytest.fixture
def deployment(servers: Servers, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Deployment]:
    with run_api(tmp_path, servers, **getattr(request, "param", QUICK_LEASE)) as deployment:
        yield deployment


@pytest.fixture
def backend(deployment: Deployment) -> Iterator[Backend]:
    """As the API process has it."""
    values: dict[str, Any] = {name.lower(): value for name, value in deployment.settings.items()}
    api = deployment.folder / "api"
    backend = open_backend(load_settings(**values, data_dir=api / "data", models_dir=api / "models"))
    yield backend
    backend.close()


def test_two_hosts_take_different_jobs(deployment: Deployment, backend: Backend) -> None:
    jobs = [submit_toy(backend, SLOW, reuse=False) for _ in range(2)]
    with toy_host(deployment, "east"), toy_host(deployment, "west"):
        statuses = lambda: {view(backend, job_id).status.value for job_id in jobs}  # noqa: E731
        wait_for(lambda: statuses() == {"running"}, "both jobs to run at once", START_SECONDS)
        for job_id in jobs:
            wait_for_status(backend, job_id, "succeeded", "failed", seconds=START_SECONDS)
            check_succeeded(backend, job_id, SLOW)
    attempts = [attempt for job_id in jobs for attempt in attempts_of(backend, job_id)]
    assert {attempt.worker for attempt in attempts} == {"east", "west"}
    assert len(attempts) == 2
    for name in ("east", "west"):
        assert not list((deployment.folder / name / "models").glob("*")), "its base model came out of the store"


def test_another_host_takes_over_from_one_that_is_gone(deployment: Deployment, backend: Backend) -> None:
    job_id = submit_toy(backend, SLOW)
    with toy_host(deployment, "east") as east:
        wait_for_status(backend, job_id, "running", seconds=START_SECONDS)
        wait_for_step(backend, job_id, "dpo", 6)
        with toy_host(deployment, "west"):
            east.send_signal(signal.SIGKILL)
            wait_for_status(backend, job_id, "succeeded", "failed", seconds=START_SECONDS)
    check_succeeded(backend, job_id, SLOW)
    first, second = attempts_of(backend, job_id)
    assert (first.worker, second.worker) == ("east", "west")
    assert second.resume_stage == "dpo"
    assert second.resume_step is not None
    assert second.resume_step >= 4


@pytest.mark.parametrize("deployment", [{"BROKER_URL": f"redis://127.0.0.1:{free_port()}/0"}], indirect=True)
def test_jobs_start_although_redis_is_never_there(deployment: Deployment, backend: Backend) -> None:
    assert deployment.client.health()["status"] == "degraded"
    with toy_host(deployment, "east", POLL_SECONDS="1"):
        for _ in range(2):
            job_id = submit_toy(backend, Script(), reuse=False)
            wait_for_status(backend, job_id, "succeeded", "failed", seconds=START_SECONDS)
            check_succeeded(backend, job_id, Script())
    assert deployment.client.health()["broker"] == "down"


@pytest.mark.parametrize("deployment", [NEVER_POLLS], indirect=True)
def test_a_host_is_woken_over_redis(deployment: Deployment, backend: Backend) -> None:
    log = deployment.folder / "east.log"
    with toy_host(deployment, "east"):
        wait_for(lambda: " ready." in log.read_text(), "the worker to listen", START_SECONDS)
        job_id = submit_toy(backend, Script())
        wait_for_status(backend, job_id, "succeeded", "failed")
