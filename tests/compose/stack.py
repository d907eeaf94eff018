"""`docker compose` on a project of its own, with secrets made for this run as a user makes them."""

import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from preftune import Client

ROOT = Path(__file__).resolve().parents[2]
PROJECT = "preftune-test"
BASE_IMAGE = "python:3.11-slim"
PATIENCE_SECONDS = 300
KEEP_DAYS = 30
_STARTED = time.monotonic()


def say(text: str) -> None:
    print(f"[{time.monotonic() - _STARTED:6.1f} s] {text}", flush=True)  # noqa: T201


def require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise SystemExit(f"test-compose: {otherwise}")


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        require(time.monotonic() < deadline, f"waited {PATIENCE_SECONDS} s for {what}")
        time.sleep(0.3)


def docker(*arguments: str, check: bool = True, timeout: float = 60) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=check, timeout=timeout)


def is_local(image: str) -> bool:
    return docker("image", "inspect", image, check=False).returncode == 0


def can_pull(image: str) -> bool:
    return docker("pull", "--quiet", image, check=False, timeout=PATIENCE_SECONDS).returncode == 0


def local_images(folder: Path) -> Path | None:
    """Compose file with tags in place of digests, for an engine that has those tags and cannot pull; else None."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    pinned = {name: service["image"] for name, service in services.items() if "@sha256:" in service.get("image", "")}
    if all(is_local(image) for image in pinned.values() if "$" not in image) or can_pull(pinned["redis"]):
        return None
    tags = {name: strip_digest(image) for name, image in pinned.items()}
    tags = {name: tag if is_local(tag) else f"{tag.rpartition(':')[0]}:latest" for name, tag in tags.items()}
    if not all(is_local(tag) for tag in (BASE_IMAGE, *tags.values())):
        return None
    arguments = {"args": {"PYTHON": BASE_IMAGE}}
    built = {name: {"build": arguments} for name, service in services.items() if "build" in service or "<<" in service}
    chosen = {name: {"image": tag} for name, tag in tags.items()}
    path = folder / "local-images.yml"
    path.write_text(yaml.safe_dump({"services": built | chosen}), encoding="utf-8")
    return path


def strip_digest(image: str) -> str:
    """Name and tag alone: `store:${TAG:-4.48@sha256:…}` becomes `store:4.48`."""
    return re.sub(r"@sha256:[0-9a-f]+", "", re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", image))


class Stack:
    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder = folder
        self.client_url = f"http://127.0.0.1:{self.port}"
        self.secrets: set[str] = set()
        images = local_images(folder)
        self.files = ["docker-compose.yml", *([str(images)] if images else [])]
        if images:
            say("images by their local tags, not by the pinned digests")
        self.make_secrets(folder / "secrets")

    def make_secrets(self, secrets_dir: Path) -> None:
        self.secrets_dir = secrets_dir
        self.env_file = self.folder / "env"
        self.env_file.write_text(
            f"SECRETS_DIR={secrets_dir}\nPREFTUNE_PUBLISH=127.0.0.1:{self.port}\n"
            "WORKER_THREADS=1\nLIGHT_THREADS=1\n"
            f"PREFTUNE_KEEP_CHECKPOINTS_DAYS={KEEP_DAYS}\nPREFTUNE_OTLP_ENDPOINT=\n"
        )
        self.script("make-secrets.sh")
        self.secrets |= {path.read_text().strip() for path in secrets_dir.iterdir()}
        self.client = Client(self.client_url, api_key=(secrets_dir / "api_key").read_text().strip())

    def script(self, name: str, *arguments: Path) -> None:
        """One of the scripts under docker/, on this stack."""
        own = {"COMPOSE_PROJECT_NAME": PROJECT, "COMPOSE_ENV_FILES": str(self.env_file)}
        own |= {"COMPOSE_FILE": os.pathsep.join(self.files)}
        command = ["sh", f"docker/{name}", *map(str, arguments)]
        environment = os.environ | own | {"SECRETS_DIR": str(self.secrets_dir)}
        run = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=600
        )
        require(run.returncode == 0, f"docker/{name} failed:\n{run.stderr}")

    def compose(self, *arguments: str, timeout: float = 900) -> str:
        files = [part for path in self.files for part in ("-f", path)]
        command = ["docker", "compose", "-p", PROJECT, *files, "--env-file", str(self.env_file), *arguments]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False)
        if run.returncode:
            raise SystemExit(f"docker compose {' '.join(arguments)} failed:\n{run.stdout}\n{run.stderr}")
        return run.stdout

    def config(self) -> dict[str, Any]:
        config: dict[str, Any] = json.loads(self.compose("config", "--format", "json"))
        return config

    def containers(self) -> list[str]:
        """Ids, of the stopped ones too."""
        return self.compose("ps", "-a", "-q").split()

    def health(self, service: str) -> str:
        """As the engine says: starting, healthy, unhealthy."""
        container = self.compose("ps", "-q", service).strip()
        return docker("inspect", "-f", "{{.State.Health.Status}}", container).stdout.strip()

    def up(self) -> float:
        """Returns the seconds until everything is healthy."""
        started = time.monotonic()
        self.compose("up", "-d", "--wait", "--wait-timeout", "240")
        return time.monotonic() - started
