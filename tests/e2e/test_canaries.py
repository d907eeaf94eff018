"""Planted secrets turn up nowhere: in no log at its most talkative, no answer, no trainer's process; outages or not."""

import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from deployments import Deployment, Servers, run_api
from servers import S3Server, run_postgresql, run_redis, run_s3
from toy_jobs import TESTS, children_of, submit_toy, wait_for, wait_for_status, wait_for_step
from toy_trainer import Script
from warm_processes import fresh

from core.services.backend import Backend, open_backend
from core.settings import load_settings

PASSWORD = "canary-of-the-database"
SECRETS = (PASSWORD, S3Server.secret_access_key)
SLOW = Script(steps=40, step_seconds=0.1)


@pytest.fixture
def servers() -> Iterator[Servers]:
    """Of its own: it takes them away."""
    with run_postgresql() as postgresql, run_s3() as s3, run_redis() as redis:
        yield Servers(postgresql=postgresql, s3=s3, redis=redis)


def backend_of(deployment: Deployment) -> Backend:
    api = deployment.folder / "api"
    values = {name.lower(): value for name, value in deployment.settings.items()}
    return open_backend(load_settings(**values, data_dir=api / "data", models_dir=api / "models"))


def leaks(texts: dict[str, str], secrets: tuple[str, ...]) -> list[str]:
    return [name for name, text in texts.items() if any(secret in text for secret in secrets)]


def environments_below(pid: int) -> dict[str, str]:
    """Of the process' children: the trainer, and what it starts."""
    found = {}
    for child in children_of(pid):
        found[f"environment of {child}"] = Path(f"/proc/{child}/environ").read_text(errors="replace")
        found |= environments_below(child)
    return found


def test_no_secret_leaves_the_processes_that_need_it(servers: Servers, tmp_path: Path) -> None:
    more = {"DATABASE_PASSWORD": PASSWORD, "LOG_LEVEL": "debug", "LEASE_SECONDS": "3", "HEARTBEAT_SECONDS": "0.3"}
    worker = (sys.executable, str(TESTS / "toy_worker.py"))
    with (
        fresh(),  # environments are read in /proc, where those of a forked process are its ancestor's
        run_api(tmp_path, servers, **more) as deployment,
        deployment.host("worker", worker) as process,
    ):
        key = deployment.client._transport.http.headers["Authorization"].removeprefix("Bearer ")
        secrets = (*SECRETS, key)
        backend = backend_of(deployment)
        job_id = submit_toy(backend, SLOW)
        wait_for_step(backend, job_id, "dpo", 2)
        environments = environments_below(process.pid)
        assert environments
        wait_for_status(backend, job_id, "succeeded")
        backend.close()
        servers.s3.process.kill()
        servers.s3.process.wait()
        answers = {
            path: ask(deployment, path) for path in (f"/jobs/{job_id}/artifact/archive", "/health/ready", "/v1/models")
        }
        servers.postgresql.stop()
        face = ("/v1/files", "/v1/fine_tuning/jobs", f"/v1/fine_tuning/jobs/{job_id}/events", "/v1/webhook_endpoints")
        answers |= {path: ask(deployment, path) for path in ("/jobs", "/models", *face)}
        for path in (f"/jobs/{key}", f"/v1/models/{key}"):  # where it does not belong
            ask(deployment, path)
        wait_for(lambda: "cannot" in (tmp_path / "worker.log").read_text(), "the worker to notice")
        servers.postgresql.start()
    logs = {path.name: path.read_text(errors="replace") for path in tmp_path.glob("*.log")}
    files = {
        str(path): path.read_bytes().decode("latin-1")
        for path in tmp_path.rglob("*")
        if path.is_file() and path.suffix != ".log"
    }
    assert {"api.log", "worker.log", "migrate.log"} <= logs.keys()
    assert all(logs[name] for name in ("api.log", "worker.log"))
    assert leaks(logs | files | environments | answers, secrets) == []


def ask(deployment: Deployment, path: str) -> str:
    client = deployment.client._transport.http
    try:
        answer = client.get(path, timeout=60)
    except httpx.HTTPError as error:
        return str(error)
    return f"{answer.headers} {answer.text}"
