"""Jobs that the first release trained in part end under this version; a worker of it trains beside this version's API.

Real processes and real training of a tiny model, on a data directory and on PostgreSQL with S3: `make test-upgrade`.
"""

import hashlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from servers import run_postgresql, run_s3
from tiny_models import make_tiny_model
from trained_jobs import FIELDS, make_rows
from upgrade.deployment import ROOT, Deployment, ask, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
LONG: dict[str, Any] = FIELDS | {"dpo": FIELDS["dpo"] | {"epochs": 40}, "checkpoint_every_steps": 8}
"""Some two hundred steps: it can be met while it runs."""


@pytest.fixture(params=["sqlite", "postgresql"])
def deployment(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Deployment]:
    make_tiny_model(tmp_path / "models" / "tiny")
    if request.param == "sqlite":
        made = Deployment(tmp_path, {})
        yield made
        made.close()
        return
    with run_postgresql() as postgresql, run_s3() as s3:
        made = Deployment(
            tmp_path,
            {
                "DATABASE_URL": postgresql.create_database("upgraded"),
                "STORAGE_URL": "s3://upgraded/some/prefix",
                "S3_ENDPOINT_URL": s3.endpoint_url,
                "S3_ACCESS_KEY_ID": s3.access_key_id,
                "S3_SECRET_ACCESS_KEY": s3.secret_access_key,
            },
        )
        yield made
        made.close()


def upload(client: httpx.Client) -> str:
    rows = "".join(json.dumps({k: v for k, v in row.items() if k != "line"}) + "\n" for row in make_rows())
    made = ask(client, "POST", "/datasets", files={"file": ("pairs.jsonl", rows.encode())})
    assert made["status"] == "ready", made
    return str(made["id"])


def post(client: httpx.Client, dataset_id: str, **fields: Any) -> str:
    body = {"base_model": "tiny", "dataset_id": dataset_id} | FIELDS | fields
    return str(ask(client, "POST", "/jobs", json=body)["id"])


def job(client: httpx.Client, job_id: str) -> Any:
    return ask(client, "GET", f"/jobs/{job_id}")


def status(client: httpx.Client, job_id: str) -> str:
    return str(job(client, job_id)["status"])


def checkpoints(client: httpx.Client, job_id: str) -> list[Any]:
    return list(ask(client, "GET", f"/jobs/{job_id}/checkpoints")["data"])


def has_checkpoint(client: httpx.Client, job_id: str) -> bool:
    return any(one["stage"] == "dpo" for one in checkpoints(client, job_id))


def wait_for(client: httpx.Client, job_id: str, wanted: str) -> None:
    wait_until(lambda: status(client, job_id) in (wanted, "failed"), f"{job_id} to be {wanted}", 300)
    found = job(client, job_id)
    assert found["status"] == wanted, found


def check_succeeded(client: httpx.Client, job_id: str) -> None:
    """The policy downloads whole, and the curve has every step of DPO once."""
    wait_for(client, job_id, "succeeded")
    for file in ask(client, "GET", f"/jobs/{job_id}/artifact")["files"]:
        content = client.get(f"/jobs/{job_id}/artifact/files/{file['path']}", follow_redirects=True).content
        assert hashlib.sha256(content).hexdigest() == file["sha256"], file["path"]
    points = ask(client, "GET", f"/jobs/{job_id}/metrics", params={"stage": "dpo", "split": "train"})
    steps = [point["step"] for point in points["points"]]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) >= 10
    kinds = event_kinds(client, job_id)
    assert "resume_divergence" not in kinds


def event_kinds(client: httpx.Client, job_id: str) -> list[str]:
    return [event["kind"] for event in ask(client, "GET", f"/jobs/{job_id}/events", params={"limit": 200})["data"]]


def stages(client: httpx.Client, job_id: str) -> dict[str, str]:
    return {stage["name"]: stage["status"] for stage in job(client, job_id)["stages"]}


def test_every_job_of_the_first_release_ends_trained(released_code: Path, deployment: Deployment) -> None:
    deployment.run(released_code, "migrate")
    old = deployment.start_api(released_code)
    worker = deployment.start(released_code, "worker")
    dataset_id = upload(old)
    done = post(old, dataset_id)
    wait_for(old, done, "succeeded")
    paused = post(old, dataset_id, **LONG)
    wait_until(lambda: has_checkpoint(old, paused), "a checkpoint", 300)
    ask(old, "POST", f"/jobs/{paused}/pause")
    wait_for(old, paused, "paused")
    running = post(old, dataset_id, **LONG)
    wait_until(lambda: has_checkpoint(old, running), "a checkpoint", 300)
    queued = post(old, dataset_id, lora={}, early_stopping={}, sft=FIELDS["sft"])
    os.kill(worker.pid, signal.SIGKILL)
    assert status(old, running) == "running"
    assert status(old, queued) == "queued"
    num_policies = len(checkpoints(old, done))

    deployment.close()
    deployment.run(ROOT, "migrate")
    new = deployment.start_api(ROOT)
    deployment.start(ROOT, "worker")
    check_succeeded(new, done)
    assert len(checkpoints(new, done)) == num_policies
    ask(new, "POST", f"/jobs/{paused}/resume")
    for job_id in (running, paused, queued):
        check_succeeded(new, job_id)
    for job_id in (running, paused):
        assert "resumed" in event_kinds(new, job_id)
        assert "checkpoint_unusable" not in event_kinds(new, job_id)
        assert "checkpoint_corrupt" not in event_kinds(new, job_id)
    again = post(new, dataset_id)
    check_succeeded(new, again)
    assert stages(new, again)["sft"] == "reused", "the release's output has the digest that this version asks for"


def test_a_worker_of_the_first_release_trains_beside_this_api(released_code: Path, deployment: Deployment) -> None:
    deployment.run(released_code, "migrate")
    worker = deployment.start(released_code, "worker", WORKER_NAME="released")
    old = deployment.start_api(released_code)
    before = post(old, upload(old), **LONG)
    wait_until(lambda: has_checkpoint(old, before), "a checkpoint", 300)
    deployment.run(ROOT, "migrate")
    new = deployment.start_api(ROOT)
    check_succeeded(new, before)
    dataset_id = upload(new)
    after = post(new, dataset_id, early_stopping={})
    check_succeeded(new, after)
    assert worker.poll() is None
    handed_on = post(new, dataset_id, **LONG)
    wait_until(lambda: has_checkpoint(new, handed_on), "a checkpoint", 300)
    os.kill(worker.pid, signal.SIGKILL)
    deployment.start(ROOT, "worker", WORKER_NAME="new")
    check_succeeded(new, handed_on)
    assert "resumed" in event_kinds(new, handed_on)
