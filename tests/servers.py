"""Real servers for tests, on loopback, thrown away afterwards. Absent ones skip the tests that need them."""

import os
import shutil
import socket
import subprocess
import tempfile
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


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def postgresql_folder() -> Path | None:
    """Where initdb and postgres are: Debian keeps them off the PATH."""
    on_path = shutil.which("initdb")
    candidates = sorted(POSTGRESQL_HOMES.glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    if on_path:
        candidates.append(Path(on_path).resolve().parent)
    return next((path for path in candidates if (path / "initdb").exists() and (path / "postgres").exists()), None)


@contextmanager
def run_postgresql() -> Iterator[PostgresServer]:
    """Skips the test when no PostgreSQL is installed."""
    folder = postgresql_folder()
    if folder is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    work = Path(tempfile.mkdtemp(prefix="preftune-postgresql-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(work, "postgres")
        data = work / "data"
        _as_server_user([str(folder / "initdb"), "-N", "-A", "trust", "-U", "postgres", "-D", str(data)])
        port = free_port()
        settings = " ".join(f"-c {name}={value!r}" for name, value in _SETTINGS.items())
        start = [str(folder / "pg_ctl"), "-D", str(data), "-w", "-t", str(START_SECONDS), "-l", str(work / "log")]
        _as_server_user([*start, "-o", f"-p {port} {settings}", "start"])
        try:
            yield PostgresServer(port=port)
        finally:
            _as_server_user([str(folder / "pg_ctl"), "-D", str(data), "-w", "-m", "immediate", "stop"])
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _as_server_user(command: list[str]) -> None:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() == 0:
        quoted = " ".join("'" + part.replace("'", "'\\''") + "'" for part in command)
        command = ["su", "postgres", "-s", "/bin/bash", "-c", quoted]
    run = subprocess.run(command, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if run.returncode != 0:
        pytest.fail(f"{command[0]} failed: {run.stdout[-2000:]}")
