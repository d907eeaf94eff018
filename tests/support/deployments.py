"""Whole deployments for tests: the real commands as processes, embedded or on real servers, reached by a client."""

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from backends import BASE_MODEL
from servers import PostgresServer, RedisServer, S3Server, free_port
from tiny_models import make_tiny_model
from warm_processes import WarmPopen

from preftune import Client
from preftune.errors import PreftuneError

COMMAND = (sys.executable, "-P", "-m", "cli.main")
START_SECONDS = 60
QUICK = {"SWEEP_SECONDS": "0.5", "NUM_THREADS": "1", "DEVICE": "cpu"}


@dataclass(frozen=True, kw_only=True)
class Servers:
    postgresql: PostgresServer
    s3: S3Server
    redis: RedisServer

    def settings(self, name: str) -> dict[str, str]:
        """A database and a bucket of their own."""
        return {
            "DATABASE_URL": self.postgresql.create_database(name),
            "BROKER_URL": self.redis.url,
            "STORAGE_URL": f"s3://{name.replace('_', '-')}/some/prefix",
            "S3_ENDPOINT_URL": self.s3.endpoint_url,
            "S3_ACCESS_KEY_ID": self.s3.access_key_id,
            "S3_SECRET_ACCESS_KEY": self.s3.secret_access_key,
        }


@dataclass(frozen=True, kw_only=True)
class Deployment:
    client: Client
    folder: Path
    settings: dict[str, str]
    """What every process of it is given, without the prefix."""

    @contextmanager
    def host(
        self, name: str, command: Sequence[str] = (*COMMAND, "worker"), **settings: str
    ) -> Iterator[subprocess.Popen[bytes]]:
        """A worker as on a machine of its own: it knows the URLs, and starts with empty folders."""
        own = {
            "DATA_DIR": str(self.folder / name / "data"),
            "MODELS_DIR": str(self.folder / name / "models"),
            "WORKER_NAME": name,
        }
        with start(name, self.folder, self.settings | own | settings, command) as process:
            yield process


@contextmanager
def run_embedded(folder: Path) -> Iterator[Deployment]:
    """`preftune serve`: SQLite, files, no key."""
    port = free_port()
    settings = QUICK | {"PORT": str(port), "DATA_DIR": str(folder / "data"), "MODELS_DIR": str(folder / "models")}
    make_tiny_model(folder / "models" / BASE_MODEL)
    with start("serve", folder, settings, [*COMMAND, "serve"]) as process:
        yield reach(Client(f"http://127.0.0.1:{port}"), folder, settings, process)


@contextmanager
def run_api(folder: Path, servers: Servers, **settings: str) -> Iterator[Deployment]:
    """`preftune migrate`, then `preftune api` on real servers; workers are for the test to add."""
    key, port = secrets.token_hex(32), free_port()
    shared = QUICK | servers.settings(f"whole_{secrets.token_hex(4)}") | settings
    own = {
        "PORT": str(port),
        "API_KEY": key,
        "DATA_DIR": str(folder / "api" / "data"),
        "MODELS_DIR": str(folder / "api" / "models"),
    }
    make_tiny_model(folder / "api" / "models" / BASE_MODEL)
    with start("migrate", folder, shared | own, [*COMMAND, "migrate"]) as migration:
        assert migration.wait(START_SECONDS) == 0, (folder / "migrate.log").read_text()
    with start("api", folder, shared | own, [*COMMAND, "api"]) as process:
        yield reach(Client(f"http://127.0.0.1:{port}", api_key=key), folder, shared, process)


@contextmanager
def start(
    name: str, folder: Path, settings: dict[str, str], command: Sequence[str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A process with these settings and none of ours; its output goes to `<name>.log`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFTUNE_")}
    environment |= {f"PREFTUNE_{name}": value for name, value in settings.items()}
    with (folder / f"{name}.log").open("ab") as log:
        process = WarmPopen(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            pytest.fail(f"{name} did not stop")


def reach(
    client: Client,
    folder: Path,
    settings: dict[str, str],
    process: subprocess.Popen[bytes],
    *,
    seconds: float = START_SECONDS,
) -> Deployment:
    """Waits until the service is ready."""
    deployment = Deployment(client=client, folder=folder, settings=settings)
    deadline = time.monotonic() + seconds
    while True:
        assert process.poll() is None, [path.read_text() for path in folder.glob("*.log")]
        try:
            client.health()
            return deployment
        except PreftuneError:
            if time.monotonic() > deadline:
                raise
