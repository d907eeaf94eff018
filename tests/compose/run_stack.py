"""The compose stack, for real: build, up, a whole job through the published port, kills and restarts, down and up.

Run by `make test-compose` on a machine with a Docker engine; prints image sizes and seconds. It uses a project name,
port and volumes of its own and removes them at the end. What it finds wrong ends it with a message and exit code 1.
"""

import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
from midway import Caught, Hunt
from stack import BASE_IMAGE, KEEP_DAYS, PATIENCE_SECONDS, ROOT, Stack, docker, require, say, wait_for

from preftune import Client, PreftuneError

sys.path.insert(0, str(ROOT / "tests" / "support"))

from tiny_models import make_tiny_model

NUM_PAIRS = 200
STAGE = {"batch_size": 4, "learning_rate": 1e-3}
EPOCHS = 6
MIDWAY_STEP = 40
IMAGES = ("preftune-api", "preftune-worker")
CANARY = "canary-5d1f0c2e8b7a4963"


def steps_of(epochs: int) -> int:
    return epochs * NUM_PAIRS // int(STAGE["batch_size"])


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
    check_settings(stack)
    add_base_model(stack, folder)
    dataset = stack.client.datasets.upload(write_pairs(folder / "pairs.parquet"))
    disturbed = disturb(stack, dataset["id"])
    job_id = disturbed.job_id
    freeze(stack, "light")
    check_outcome(stack.client, disturbed, folder / "policy")
    check_illness(stack, "light")
    check_scores(stack.client, job_id)
    check_secrecy(stack)
    stack.compose("down", "-t", "10")
    say(f"down and up again: healthy after {stack.up():.1f} s")
    check_outcome(stack.client, disturbed, folder / "policy-again")
    compare(folder / "policy", folder / "policy-again")
    say("the job and its policy are still there, byte for byte")
    rehearse_restoring(stack, folder, dataset["id"], disturbed)
    check_secrecy(stack)


def rehearse_restoring(stack: Stack, folder: Path, dataset_id: str, undisturbed: Caught) -> None:
    """Into an empty stack with other secrets: what was there is there, and a paused job ends as an undisturbed one."""
    paused = drain_and_pause(stack, dataset_id, undisturbed.epochs)
    key = stack.compose("exec", "-T", "api", "preftune", "keys", "create", "drill").strip()
    stack.secrets.add(key)
    stack.script("backup.sh", folder / "backup")
    say(f"backed up: {sum(path.stat().st_size for path in (folder / 'backup').iterdir()) / 1e6:,.0f} MB")
    check_secrecy(stack)
    stack.compose("down", "-v", "-t", "10")
    stack.make_secrets(folder / "other-secrets")
    stack.script("restore.sh", folder / "backup")
    say("restored into an empty stack with other secrets")
    restored = Client(stack.client_url, api_key=key)
    compare(download(restored, undisturbed.job_id, folder / "restored"), folder / "policy")
    reference = folder / "policy"
    if paused.epochs != undisturbed.epochs:  # this machine is so fast that the paused job had to be longer
        job_id = submit(restored, dataset_id, epochs=paused.epochs, reuse=False)
        restored.jobs.wait(job_id, timeout_seconds=PATIENCE_SECONDS)
        reference = download(restored, job_id, folder / "reference")
    restored.jobs.resume(paused.job_id)
    job = restored.jobs.wait(paused.job_id, timeout_seconds=PATIENCE_SECONDS)
    require(job["status"] == "succeeded", f"the paused job {job['status']}: {job['error']}")
    resumed = download(restored, paused.job_id, folder / "resumed")
    weights = [path / "model.safetensors" for path in (resumed, reference)]
    require(weights[0].read_bytes() == weights[1].read_bytes(), "the resumed job ends in other weights")
    say("a key made before opens it; the policy is the same; the paused job ended in the very same weights")


def drain_and_pause(stack: Stack, dataset_id: str, epochs: int) -> Caught:
    """A job in the midst of DPO, paused while no worker runs that could end it before.

    `docker compose stop` lets the worker commit a checkpoint and hand its job back.
    """
    caught = hunt(stack, dataset_id, lambda: stack.compose("stop", "worker"), reuse=False).catch(epochs, MIDWAY_STEP)
    job = stack.client.jobs.get(caught.job_id)
    require(job["status"] == "queued", f"after the drain the job is {job['status']}")
    stack.client.jobs.pause(caught.job_id)
    job = stack.client.jobs.get(caught.job_id)
    require(job["status"] == "paused", f"a queued job that is paused is {job['status']}")
    say(f"the worker drained; its job is paused at DPO step {caught.step} of {steps_of(caught.epochs)}")
    stack.up()
    return caught


def hunt(stack: Stack, dataset_id: str, strike: Callable[[], object], **fields: Any) -> Hunt:
    return Hunt(
        jobs=stack.client.jobs,
        submit=lambda epochs: submit(stack.client, dataset_id, epochs=epochs, **fields),
        strike=strike,
        recover=stack.up,
        wait_for=wait_for,
    )


def download(client: Client, job_id: str, folder: Path) -> Path:
    """The client compares every file with its sum."""
    return client.jobs.download(job_id, folder)


def compare(one: Path, other: Path) -> None:
    firsts, seconds = sorted(one.rglob("*")), sorted(other.rglob("*"))
    require([path.name for path in firsts] == [path.name for path in seconds], f"files of {one} and {other} differ")
    for first, second in zip(firsts, seconds, strict=True):
        require(first.is_dir() or first.read_bytes() == second.read_bytes(), f"{first} and {second} differ")


def check_images() -> None:
    base_bytes = image_bytes(BASE_IMAGE)
    for image in IMAGES:
        num_bytes = image_bytes(image)
        user = docker("run", "--rm", image, "id", "-u").stdout.strip()
        require(user not in ("", "0"), f"{image} runs as user {user!r}")
        added = f" ({(num_bytes - base_bytes) / 1e6:,.0f} MB on top of {BASE_IMAGE})" if base_bytes else ""
        say(f"{image}: {num_bytes / 1e6:,.0f} MB{added}, runs as user {user}")
    has_torch = "import importlib.util, sys; sys.exit(importlib.util.find_spec('torch') is not None)"
    require(
        docker("run", "--rm", "preftune-api", "python", "-c", has_torch, check=False).returncode == 0, "torch in API"
    )


def image_bytes(image: str) -> int:
    """0: it is not here under this name, as after a build by an engine that keeps base images to itself."""
    return int(docker("image", "inspect", "-f", "{{.Size}}", image, check=False).stdout.strip() or 0)


def add_base_model(stack: Stack, folder: Path) -> None:
    """As an operator adds a folder: copied into the volume of base models."""
    tiny = make_tiny_model(folder / "tiny")
    for path in (tiny, *tiny.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    copy = ["-r", "/from/tiny", "/var/lib/preftune/models/"]
    stack.compose(
        "run", "--rm", "-T", "--no-deps", "-v", f"{tiny}:/from/tiny:ro", "--entrypoint", "cp", "models", *copy
    )
    names = [model["name"] for model in stack.client.models()]
    require(names == ["tiny"], f"the API lists {names}")


def check_exposure(stack: Stack) -> None:
    """Only the API's port is published, and it wants the key."""
    published = {name for name, service in stack.config()["services"].items() if service.get("ports")}
    require(published == {"api"}, f"published: {published}")
    for headers in ({}, {"Authorization": f"Bearer {CANARY}"}):
        status = httpx.get(f"{stack.client_url}/models", headers=headers).status_code
        require(status == 401, f"an answer of {status} without the key")


def check_confinement(stack: Stack) -> None:
    """No root file system to write to, no capability but the one that is named, no root but in the store."""
    for service, user, capabilities in (
        ("api", "10001", 0), ("worker", "10001", 0), ("light", "10001", 0),
        ("postgres", "999", 0), ("redis", "999", 0), ("store", "0", 2),
    ):  # fmt: skip
        script = "id -u; grep CapEff /proc/self/status; touch /new 2>/dev/null && echo writable; true"
        found, effective, *rest = stack.compose("exec", "-T", service, "sh", "-c", script).split("\n")
        require(found == user, f"{service} runs as {found}")
        require(int(effective.split()[1], 16) == capabilities, f"{service}: {effective}")
        require("writable" not in rest, f"{service} can write to its root")
    require(stack.config()["networks"]["back"]["internal"] is True, "the services' network leads out")
    for name, service in stack.config()["services"].items():
        require(int(service.get("mem_limit", 0)) > 0, f"{name} may take all memory")
    say("every container: read-only root, no capabilities, bounded memory, no network but the stack's own")


def check_settings(stack: Stack) -> None:
    """What `.env` holds reaches every process; what it leaves empty, none."""
    for service in ("api", "worker", "light"):
        told = stack.compose("exec", "-T", service, "printenv").split("\n")
        require(f"PREFTUNE_KEEP_CHECKPOINTS_DAYS={KEEP_DAYS}" in told, f"{service} was not told of the retention")
        require("PREFTUNE_OTLP_ENDPOINT=" in told, f"{service} was told of a collector")


def freeze(stack: Stack, service: str, number: str = "STOP") -> None:
    """The process itself, below the container's init; its container goes on."""
    stack.compose("exec", "-T", service, "sh", "-c", f"kill -{number} $(cat /proc/1/task/1/children)")


def check_illness(stack: Stack, service: str) -> None:
    """A worker that stands still is told apart from one that has nothing to do."""
    wait_for(lambda: stack.health(service) == "unhealthy", f"the frozen {service} worker to be found ill")
    require(stack.health("worker") == "healthy", "the other worker was found ill too")
    freeze(stack, service, "CONT")
    wait_for(lambda: stack.health(service) == "healthy", f"the {service} worker to be found well again")
    say(f"the frozen {service} worker was found unhealthy, and healthy once it went on")


def check_secrecy(stack: Stack) -> None:
    """Nothing secret in logs, in what describes the containers, or in images."""
    told = {
        "the logs": stack.compose("logs", "--no-color"),
        "a container's description": docker("inspect", *stack.containers()).stdout,
        "an image": "".join(docker("history", "--no-trunc", image).stdout for image in IMAGES),
    }
    for place, text in told.items():
        for secret in (*stack.secrets, CANARY):
            require(secret not in text, f"a secret stands in {place}")
    say(f"{len(told['the logs'].splitlines())} lines of logs hold none of {len(stack.secrets) + 1} secrets")


def write_pairs(path: Path) -> Path:
    rows = [
        {"prompt": f"Name {n}?", "chosen": f"A short reply {n}.", "rejected": f"Well, let me see about {n} …"}
        for n in range(NUM_PAIRS)
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def submit(client: Client, dataset_id: str, *, epochs: int, **more: Any) -> str:
    stages: dict[str, Any] = {"sft": STAGE | {"epochs": 1}, "dpo": STAGE | {"epochs": epochs}}
    fields = stages | {"checkpoint_every_steps": 20, "validation_fraction": 0, "precision": "fp32"}
    job = client.jobs.submit(base_model="tiny", dataset_id=dataset_id, **fields, **more)
    job_id: str = job["id"]
    say(f"submitted {job_id}, with {steps_of(epochs)} steps of DPO")
    return job_id


def disturb(stack: Stack, dataset_id: str) -> Caught:
    """Kill the worker mid-DPO, restart database and store, lose Redis; the job must not notice for good."""
    kill = hunt(stack, dataset_id, lambda: stack.compose("kill", "-s", "KILL", "worker"))
    caught = kill.catch(EPOCHS, MIDWAY_STEP)
    say(f"worker killed at DPO step {caught.step} of {steps_of(caught.epochs)}")
    check_secrecy(stack)  # a container that is removed takes its log with it
    stack.compose("rm", "-f", "worker")
    stack.compose("restart", "-t", "10", "postgres", "store")
    stack.compose("rm", "-s", "-f", "redis")
    say(f"database and store restarted, Redis and worker replaced: healthy after {stack.up():.1f} s")
    return caught


def check_outcome(client: Client, caught: Caught, folder: Path) -> None:
    job_id = caught.job_id
    job: dict[str, Any] = client.jobs.wait(job_id, timeout_seconds=PATIENCE_SECONDS)
    require(job["status"] == "succeeded", f"the job {job['status']}: {job['error']}")
    require(job["attempt"] == 2, f"{job['attempt']} attempts")
    steps = all_steps(client, job_id)
    require(steps == list(range(1, steps_of(caught.epochs) + 1)), "a metric point is missing or double")
    download(client, job_id, folder)
    require((folder / "model.safetensors").stat().st_size > 0, "no weights")
    say(f"succeeded after {job['attempt']} attempts, {len(steps)} DPO steps; policy downloaded and verified")


def check_scores(client: Client, job_id: str) -> None:
    """By the light worker: the one that trains leaves them to it."""
    pair = {"prompt": "Name 1?", "chosen": "A short reply 1.", "rejected": "Well, let me see about 1 …"}
    try:
        (scores,) = client.jobs.score(job_id, pairs=[pair], timeout_seconds=PATIENCE_SECONDS)
    except (PreftuneError, TimeoutError) as error:
        raise SystemExit(f"test-compose: no scores: {error}") from None
    require(scores["margin"] > 0, f"the policy does not prefer what it was shown: {json.dumps(scores)}")
    say(f"scored by the light worker: reward margin {scores['margin']:+.2f}")


def all_steps(client: Client, job_id: str) -> list[int]:
    steps: list[int] = []
    after = 0
    while True:
        page = client.jobs.metrics(job_id, after=after, stage="dpo", split="train")
        steps += [point["step"] for point in page["points"]]
        after = page["last_seq"]
        if not page["has_more"]:
            return steps


if __name__ == "__main__":
    os.environ.pop("PREFTUNE_URL", None)
    main()
