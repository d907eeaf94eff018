"""The compose stack, for real: build, up, a whole job through the published port, kills and restarts, down and up.

Run by `make test-compose` on a machine with a Docker engine; prints image sizes and seconds. It uses a project name,
port and volumes of its own and removes them at the end. What it finds wrong ends it with a message and exit code 1.
"""

import json
import os
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
NUM_PAIRS = 200
STAGE = {"batch_size": 4, "learning_rate": 1e-3}
EPOCHS = 6
STEPS = EPOCHS * NUM_PAIRS // 4
JOB_SECONDS = 300
STORE_IMAGE = "chrislusf/seaweedfs"
PINNED_TAG = "4.48"


def say(text: str) -> None:
    print(f"[{time.monotonic() - STARTED:6.1f} s] {text}", flush=True)  # noqa: T201


STARTED = time.monotonic()


def store_tag() -> str:
    """The pinned tag; where an engine has only another one locally, as one that cannot pull, that."""
    for tag in (PINNED_TAG, "latest"):
        if docker("image", "inspect", f"{STORE_IMAGE}:{tag}", check=False).returncode == 0:
            return tag
    return PINNED_TAG


def docker(*arguments: str, check: bool = True, timeout: float = 60) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=check, timeout=timeout)


class Stack:
    """`docker compose` on our own project, with secrets made for this run as a user makes them."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder = folder
        self.client_url = f"http://127.0.0.1:{self.port}"
        self.make_secrets(folder / "secrets")

    def make_secrets(self, secrets_dir: Path) -> None:
        self.secrets_dir = secrets_dir
        self.env_file = self.folder / "env"
        self.env_file.write_text(
            f"SECRETS_DIR={secrets_dir}\nPREFTUNE_PUBLISH=127.0.0.1:{self.port}\n"
            f"SEAWEEDFS_TAG={store_tag()}\nWORKER_THREADS=1\n"
        )
        self.script("make-secrets.sh")
        self.client = Client(self.client_url, api_key=(secrets_dir / "api_key").read_text().strip())

    def script(self, name: str, *arguments: Path) -> None:
        """One of the scripts under docker/, on this stack."""
        own = {"COMPOSE_PROJECT_NAME": PROJECT, "COMPOSE_ENV_FILES": str(self.env_file)}
        command = ["sh", f"docker/{name}", *map(str, arguments)]
        environment = os.environ | own | {"SECRETS_DIR": str(self.secrets_dir)}
        run = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=600
        )
        require(run.returncode == 0, f"docker/{name} failed:\n{run.stderr}")

    def compose(self, *arguments: str, timeout: float = 900) -> str:
        command = ["docker", "compose", "-p", PROJECT, "--env-file", str(self.env_file), *arguments]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False)
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
        except BaseException:
            print(stack.compose("logs", "--no-color", "--tail", "40"))  # noqa: T201
            raise
        finally:
            stack.compose("down", "-v", "--remove-orphans", "-t", "5")
    say("torn down; all passed")


def exercise(stack: Stack, folder: Path) -> None:
    stack.compose("build", timeout=1800)
    say("built")
    check_images()
    say(f"healthy after {stack.up():.1f} s")
    check_exposure(stack)
    check_confinement(stack)
    add_base_model(stack, folder)
    dataset = stack.client.datasets.upload(write_pairs(folder / "pairs.jsonl"))
    job_id = submit(stack.client, dataset["id"])
    disturb(stack, job_id)
    check_outcome(stack.client, job_id, folder / "policy")
    check_logs(stack)
    stack.compose("down", "-t", "10")
    say(f"down and up again: healthy after {stack.up():.1f} s")
    check_outcome(stack.client, job_id, folder / "policy-again")
    compare(folder / "policy", folder / "policy-again")
    say("the job and its policy are still there, byte for byte")
    rehearse_restoring(stack, folder, dataset["id"])


def rehearse_restoring(stack: Stack, folder: Path, dataset_id: str) -> None:
    """Into an empty stack with other secrets: what was there is there, and a paused job ends as an undisturbed one."""
    paused = submit(stack.client, dataset_id, reuse=False)
    wait_for(lambda: dpo_step(stack.client, paused) >= 40, "DPO to be under way")
    stack.client.jobs.pause(paused)
    wait_for(lambda: stack.client.jobs.get(paused)["status"] == "paused", "the job to be paused")
    key = stack.compose("exec", "-T", "api", "preftune", "keys", "create", "drill").strip()
    stack.script("backup.sh", folder / "backup")
    say(f"backed up: {sum(path.stat().st_size for path in (folder / 'backup').iterdir()) / 1e6:,.0f} MB")
    stack.compose("down", "-v", "-t", "10")
    stack.make_secrets(folder / "other-secrets")
    stack.script("restore.sh", folder / "backup")
    say("restored into an empty stack with other secrets")
    restored = Client(stack.client_url, api_key=key)
    compare(download(restored, newest_succeeded(restored), folder / "restored"), folder / "policy")
    restored.jobs.resume(paused)
    job = restored.jobs.wait(paused, timeout_seconds=JOB_SECONDS)
    require(job["status"] == "succeeded", f"the paused job {job['status']}: {job['error']}")
    weights = [
        path / "model.safetensors" for path in (download(restored, paused, folder / "resumed"), folder / "policy")
    ]
    require(weights[0].read_bytes() == weights[1].read_bytes(), "the resumed job ends in other weights")
    say("a key made before opens it; the policy is the same; the paused job ended in the very same weights")


def newest_succeeded(client: Client) -> str:
    job_id: str = client.jobs.list(status="succeeded")["data"][0]["id"]
    return job_id


def download(client: Client, job_id: str, folder: Path) -> Path:
    return client.jobs.download(job_id, folder)


def compare(one: Path, other: Path) -> None:
    firsts, seconds = sorted(one.rglob("*")), sorted(other.rglob("*"))
    require([path.name for path in firsts] == [path.name for path in seconds], f"files of {one} and {other} differ")
    for first, second in zip(firsts, seconds, strict=True):
        require(first.is_dir() or first.read_bytes() == second.read_bytes(), f"{first} and {second} differ")


def check_images() -> None:
    for image in ("preftune-api", "preftune-worker"):
        num_bytes = int(docker("image", "inspect", "-f", "{{.Size}}", image).stdout)
        user = docker("run", "--rm", image, "id", "-u").stdout.strip()
        require(user not in ("", "0"), f"{image} runs as user {user!r}")
        say(f"{image}: {num_bytes / 1e6:,.0f} MB, runs as user {user}")
    has_torch = "import importlib.util, sys; sys.exit(importlib.util.find_spec('torch') is not None)"
    require(
        docker("run", "--rm", "preftune-api", "python", "-c", has_torch, check=False).returncode == 0, "torch in API"
    )


def add_base_model(stack: Stack, folder: Path) -> None:
    """As an operator adds a folder: copied into the volume of base models."""
    tiny = make_tiny_model(folder / "tiny")
    for path in (tiny, *tiny.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    copy = ["cp", "-r", "/from/tiny", "/var/lib/preftune/models/"]
    stack.compose("run", "--rm", "-T", "--no-deps", "-v", f"{tiny}:/from/tiny:ro", "worker", *copy)
    names = [model["name"] for model in stack.client.models()]
    require(names == ["tiny"], f"the API lists {names}")


def check_exposure(stack: Stack) -> None:
    """Only the API's port is published, and it wants the key."""
    services = json.loads(stack.compose("config", "--format", "json"))["services"]
    published = {name for name, service in services.items() if service.get("ports")}
    require(published == {"api"}, f"published: {published}")
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        status = httpx.get(f"http://127.0.0.1:{stack.port}/models", headers=headers).status_code
        require(status == 401, f"an answer of {status} without the key")


def check_confinement(stack: Stack) -> None:
    """No root file system to write to, no capability but the one that is named, no root but in the store."""
    for service, user, capabilities in (
        ("api", "10001", 0), ("worker", "10001", 0), ("postgres", "999", 0), ("redis", "999", 0), ("store", "0", 2),
    ):  # fmt: skip
        script = "id -u; grep CapEff /proc/self/status; touch /new 2>/dev/null && echo writable; true"
        found, effective, *rest = stack.compose("exec", "-T", service, "sh", "-c", script).split("\n")
        require(found == user, f"{service} runs as {found}")
        require(int(effective.split()[1], 16) == capabilities, f"{service}: {effective}")
        require("writable" not in rest, f"{service} can write to its root")
    networks = json.loads(stack.compose("config", "--format", "json"))["networks"]
    require(networks["back"]["internal"] is True, "the services' network leads out")
    say("every container: read-only root, no capabilities, no network but the stack's own")


def check_logs(stack: Stack) -> None:
    """Nothing secret in logs."""
    logs = stack.compose("logs", "--no-color")
    for path in stack.secrets_dir.iterdir():
        require(path.read_text().strip() not in logs, f"{path.name} stands in the logs")
    say(f"{len(logs.splitlines())} lines of logs hold none of the {len(list(stack.secrets_dir.iterdir()))} secrets")


def write_pairs(path: Path) -> Path:
    lines = [
        {"prompt": f"Name {n}?", "chosen": f"A short reply {n}.", "rejected": f"Well, let me see about {n} …"}
        for n in range(NUM_PAIRS)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def submit(client: Client, dataset_id: str, **more: Any) -> str:
    stages: dict[str, Any] = {"sft": STAGE | {"epochs": 1}, "dpo": STAGE | {"epochs": EPOCHS}}
    fields = stages | {"checkpoint_every_steps": 20, "validation_fraction": 0, "precision": "fp32"}
    job = client.jobs.submit(base_model="tiny", dataset_id=dataset_id, **fields, **more)
    job_id: str = job["id"]
    say(f"submitted {job_id}")
    return job_id


def disturb(stack: Stack, job_id: str) -> None:
    """Kill the worker mid-DPO, restart database and store, lose Redis; the job must not notice for good."""
    wait_for(lambda: dpo_step(stack.client, job_id) >= 40, "DPO to be under way")
    stack.compose("kill", "-s", "KILL", "worker")
    step = dpo_step(stack.client, job_id)
    require(step < STEPS, "the job had ended before its worker was killed")
    say(f"worker killed at DPO step {step} of {STEPS}")
    stack.compose("rm", "-f", "worker")
    stack.compose("restart", "-t", "10", "postgres", "store")
    stack.compose("rm", "-s", "-f", "redis")
    say(f"database and store restarted, Redis and worker replaced: healthy after {stack.up():.1f} s")


def dpo_step(client: Client, job_id: str) -> int:
    progress = client.jobs.get(job_id)["progress"]
    return int(progress["step"]) if progress["stage"] == "dpo" else 0


def check_outcome(client: Client, job_id: str, folder: Path) -> None:
    job: dict[str, Any] = client.jobs.wait(job_id, timeout_seconds=JOB_SECONDS)
    require(job["status"] == "succeeded", f"the job {job['status']}: {job['error']}")
    require(job["attempt"] == 2, f"{job['attempt']} attempts")
    steps = all_steps(client, job_id)
    require(steps == list(range(1, STEPS + 1)), "a metric point is missing or double")
    client.jobs.download(job_id, folder)
    require((folder / "model.safetensors").stat().st_size > 0, "no weights")
    say(f"succeeded after {job['attempt']} attempts, {len(steps)} DPO steps; policy downloaded and verified")


def all_steps(client: Client, job_id: str) -> list[int]:
    steps: list[int] = []
    after = 0
    while True:
        page = client.jobs.metrics(job_id, after=after, stage="dpo", split="train")
        steps += [point["step"] for point in page["points"]]
        after = page["last_seq"]
        if not page["has_more"]:
            return steps


def require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise SystemExit(f"test-compose: {otherwise}")


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + JOB_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {JOB_SECONDS} s for {what}")
        time.sleep(0.3)


if __name__ == "__main__":
    os.environ.pop("PREFTUNE_URL", None)
    main()
