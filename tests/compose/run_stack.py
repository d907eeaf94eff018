"""The compose stack, for real: build, up, a whole job through the published port, kills and restarts, down and up.

Run by `make test-compose` on a machine with a Docker engine; prints image sizes and seconds. It uses a project name,
port and volumes of its own and removes them at the end.
"""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from preftune import Client

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from tiny_models import make_tiny_model  # noqa: E402

PROJECT = "preftune-test"
NUM_PAIRS = 240
JOB_SECONDS = 300


def say(text: str) -> None:
    print(f"[{time.monotonic() - STARTED:6.1f} s] {text}", flush=True)  # noqa: T201


STARTED = time.monotonic()


class Stack:
    """`docker compose` on our own project, with secrets made for this run."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.api_key = secrets.token_hex(32)
        self.env_file = folder / "env"
        self.env_file.write_text(
            f"PREFTUNE_API_KEY={self.api_key}\nPOSTGRES_PASSWORD={secrets.token_hex(16)}\n"
            f"S3_ACCESS_KEY_ID=preftune\nS3_SECRET_ACCESS_KEY={secrets.token_hex(16)}\n"
            f"PREFTUNE_PUBLISH=127.0.0.1:{self.port}\nWORKER_DEVICE=cpu\n"
        )
        self.client = Client(f"http://127.0.0.1:{self.port}", api_key=self.api_key)

    def compose(self, *arguments: str, timeout: float = 900) -> str:
        command = ["docker", "compose", "-p", PROJECT, "--env-file", str(self.env_file), *arguments]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout)
        if run.returncode:
            raise SystemExit(f"docker compose {' '.join(arguments)} failed:\n{run.stdout}\n{run.stderr}")
        return run.stdout

    def up(self) -> float:
        started = time.monotonic()
        self.compose("up", "-d", "--wait", "--wait-timeout", "240")
        return time.monotonic() - started


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        stack = Stack(folder)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        try:
            exercise(stack, folder)
        finally:
            stack.compose("down", "-v", "--remove-orphans", "-t", "5")
    say("torn down; all passed")


def exercise(stack: Stack, folder: Path) -> None:
    stack.compose("build", timeout=1800)
    say("built")
    for image in ("preftune-api", "preftune-worker"):
        size = subprocess.run(
            ["docker", "image", "inspect", "-f", "{{.Size}}", image], capture_output=True, text=True, check=True
        )
        say(f"{image}: {int(size.stdout) / 1e6:,.0f} MB")
    say(f"healthy after {stack.up():.1f} s")
    check_exposure(stack)
    make_tiny_model(folder / "tiny")
    stack.compose("cp", str(folder / "tiny"), "worker:/var/lib/preftune/models/tiny")
    say(f"models: {[model['name'] for model in stack.client.models()]}")
    dataset = stack.client.datasets.upload(write_pairs(folder / "pairs.jsonl"))
    job_id = submit(stack.client, dataset["id"])
    disturb(stack, job_id)
    check_outcome(stack.client, job_id, folder / "policy")
    stack.compose("down", "-t", "10")
    say(f"down and up again: healthy after {stack.up():.1f} s")
    check_outcome(stack.client, job_id, folder / "policy-again")
    assert (folder / "policy" / "SHA256SUMS").read_bytes() == (folder / "policy-again" / "SHA256SUMS").read_bytes()
    say("the job and its policy are still there, byte for byte")


def check_exposure(stack: Stack) -> None:
    """Only the API's port is published, and it wants the key."""
    services = json.loads(stack.compose("config", "--format", "json"))["services"]
    assert {name for name, service in services.items() if service.get("ports")} == {"api"}
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        assert httpx.get(f"http://127.0.0.1:{stack.port}/models", headers=headers).status_code == 401


def write_pairs(path: Path) -> Path:
    lines = [
        {"prompt": f"Name {n}?", "chosen": f"A short reply {n}.", "rejected": f"Well, let me see about {n} …"}
        for n in range(NUM_PAIRS)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def submit(client: Client, dataset_id: str) -> str:
    stage = {"batch_size": 4, "epochs": 3, "learning_rate": 1e-3}
    job = client.jobs.submit(
        base_model="tiny", dataset_id=dataset_id, sft=stage, dpo=stage, checkpoint_every_steps=10, precision="fp32"
    )
    job_id: str = job["id"]
    say(f"submitted {job_id}")
    return job_id


def disturb(stack: Stack, job_id: str) -> None:
    """Kill the worker mid-DPO, restart database and store, lose Redis; the job must not notice for good."""
    wait_for(lambda: dpo_step(stack.client, job_id) >= 12, "DPO to be under way")
    stack.compose("kill", "-s", "KILL", "worker")
    say(f"worker killed at DPO step {dpo_step(stack.client, job_id)}")
    stack.compose("restart", "-t", "5", "postgres", "store")
    stack.compose("rm", "-s", "-f", "redis")
    stack.compose("up", "-d", "--wait", "--wait-timeout", "240")
    say("database and store restarted, Redis replaced by an empty one, worker back")


def dpo_step(client: Client, job_id: str) -> int:
    points = client.jobs.metrics(job_id, stage="dpo", split="train")["points"]
    return int(points[-1]["step"]) if points else 0


def check_outcome(client: Client, job_id: str, folder: Path) -> None:
    job: dict[str, Any] = client.jobs.wait(job_id, timeout_seconds=JOB_SECONDS)
    assert job["status"] == "succeeded", job["error"]
    points = client.jobs.metrics(job_id, stage="dpo", split="train")["points"]
    steps = [point["step"] for point in points]
    assert steps == list(range(1, len(steps) + 1)), "a metric point is missing or double"
    client.jobs.download(job_id, folder)
    assert (folder / "model.safetensors").stat().st_size > 0
    say(f"succeeded after {job['attempt']} attempts, {len(steps)} DPO steps; policy downloaded and verified")


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + JOB_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {JOB_SECONDS} s for {what}")
        time.sleep(0.3)


if __name__ == "__main__":
    os.environ.pop("PREFTUNE_URL", None)
    main()
