"""A whole deployment behind PgBouncer in transaction mode and Redis with TLS, as docs/operate/servers.md has them."""

import os
import secrets
import ssl
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import redis
from deploy.documented import blocks, replaced
from deploy.programs import find, make_certificate, open_folder, started
from deployments import COMMAND, Deployment, Servers, run_api
from e2e.test_whole_job import test_from_upload_to_policy
from servers import PostgresServer, RedisServer, free_port, run_postgresql, run_s3
from toy_jobs import wait_for

from core.domain.errors import Unavailable
from core.outages import reason_of
from core.queue.celery_wake_queue import open_queue
from core.settings import load_settings

PAGE = "servers.md"
PASSWORD = "change-me"
NUM_READERS, READS = 40, 5
PATIENCE = 5
"""Looks at a broker on a machine that has much else to do."""
WHOLE_JOB = test_from_upload_to_policy
"""Collected here too, by its name: with this module's deployment."""


@dataclass(frozen=True, kw_only=True)
class Pooled:
    url: str
    """Through the pooler."""
    direct_url: str
    """As the database's superuser, past it."""


@contextmanager
def pooled(postgresql: PostgresServer) -> Iterator[Pooled]:
    """Run the documented PgBouncer before a database of the documented role."""
    configuration, _ = blocks(PAGE, "PgBouncer")
    name, port = f"pooled_{secrets.token_hex(4)}", free_port()
    direct_url = postgresql.create_database(name)
    with psycopg.connect(direct_url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE preftune LOGIN PASSWORD '{PASSWORD}'")  # type: ignore[arg-type]
        connection.execute(f'ALTER DATABASE "{name}" OWNER TO preftune')  # type: ignore[arg-type]
        connection.execute("ALTER SCHEMA public OWNER TO preftune")
    try:
        with open_folder("pgbouncer") as folder:
            (folder / "users.txt").write_text(f'"preftune" "{PASSWORD}"\n')
            (folder / "pgbouncer.ini").write_text(
                replaced(
                    configuration,
                    ("port=5432 dbname=preftune", f"port={postgresql.port} dbname={name}"),
                    ("listen_port = 6432", f"listen_port = {port}\nunix_socket_dir ="),
                    ("/etc/pgbouncer/users.txt", "users.txt"),
                )
            )
            with started([find("pgbouncer"), "pgbouncer.ini"], port, folder, never_root=True):
                yield Pooled(url=f"postgresql://preftune:{PASSWORD}@127.0.0.1:{port}/preftune", direct_url=direct_url)
    finally:
        postgresql.drop_database(name)
        with psycopg.connect(postgresql.url("postgres"), autocommit=True) as connection:
            connection.execute("DROP ROLE preftune")


def bound_role(place: Pooled) -> None:
    """Run the documented statements, and let the pooler's connections end, so that new ones have them."""
    _, statements = blocks(PAGE, "PgBouncer")
    with psycopg.connect(place.direct_url, autocommit=True) as connection:
        connection.execute(statements)  # type: ignore[arg-type]
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'preftune'")


@contextmanager
def broker(program: str) -> Iterator[str]:
    """Run the documented Redis; yields the URL with its authority."""
    (configuration,) = blocks(PAGE, "Redis")
    port = free_port()
    with open_folder("redis") as folder:
        certificate, key = make_certificate(folder)
        (folder / "redis.conf").write_text(
            replaced(
                configuration,
                ("tls-port 6380", f"tls-port {port}"),
                ("/etc/redis/tls/redis.pem", str(certificate)),
                ("/etc/redis/tls/redis.key", str(key)),
            )
        )
        with started([program, folder / "redis.conf"], port, folder):
            yield f"rediss://:{PASSWORD}@127.0.0.1:{port}/0?ssl_ca_certs={certificate}"


@pytest.fixture(scope="module")
def postgresql() -> Iterator[PostgresServer]:
    with run_postgresql() as server:
        yield server


@pytest.fixture
def deployment(postgresql: PostgresServer, tmp_path: Path) -> Iterator[Deployment]:
    """API and worker behind both; whatever starts was woken over the encrypted broker."""
    with pooled(postgresql) as place, broker(find("redis-server")) as broker_url, run_s3() as s3:
        bound_role(place)
        unused = RedisServer(port=0, process=None)  # type: ignore[arg-type]
        servers = Servers(postgresql=postgresql, s3=s3, redis=unused)
        settings = {"DATABASE_URL": place.url, "BROKER_URL": broker_url, "POLL_SECONDS": "3600"}
        with run_api(tmp_path, servers, **settings) as running, running.host("worker"):
            wait_for(lambda: running.client.health()["status"] == "ok", "every part to answer")
            yield running
        for log in tmp_path.glob("*.log"):
            text = log.read_text()
            assert "Traceback" not in text, text[-3000:]
            assert "prepared statement" not in text


def test_readers_share_the_pool(deployment: Deployment) -> None:
    def read(_: int) -> int:
        return len([deployment.client.usage() for _ in range(READS)])

    with ThreadPoolExecutor(NUM_READERS) as pool:
        assert sum(pool.map(read, range(NUM_READERS))) == NUM_READERS * READS


def test_the_doctor_names_the_lost_bounds_until_the_role_has_them(postgresql: PostgresServer, tmp_path: Path) -> None:
    with pooled(postgresql) as place:
        settings = {"DATABASE_URL": place.url, "BROKER_URL": "none", "DATA_DIR": str(tmp_path), "DEVICE": "cpu"}
        environment = {"PATH": os.environ["PATH"]} | {f"PREFTUNE_{name}": value for name, value in settings.items()}

        def run(*command: str) -> str:
            done = subprocess.run(
                [*COMMAND, *command], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
            )
            return done.stdout + done.stderr

        run("migrate")
        lost = next(line for line in run("doctor").splitlines() if line.startswith("database"))
        assert "warning" in lost
        assert "statement_timeout, lock_timeout" in lost
        _, statements = blocks(PAGE, "PgBouncer")
        assert lost.partition("run `")[2].partition(";")[0].replace("<user>", "preftune") in statements
        bound_role(place)
        assert "ok" in next(line for line in run("doctor").splitlines() if line.startswith("database")).split()


def test_a_broker_is_verified_and_a_refusal_is_told(tmp_path: Path) -> None:
    def fault(url: str) -> str | None:
        reason = None
        for _ in range(PATIENCE):
            try:
                open_queue(load_settings(data_dir=tmp_path, broker_url=url)).check()
            except Unavailable as error:
                reason = reason_of(error.__cause__ or error)
                if "no answer within" in reason:
                    continue
            else:
                return None
            break
        return reason

    with broker(find("redis-server")) as url:
        assert fault(url) is None
        plain = url.partition("?")[0]
        assert "certificate verify failed" in (fault(plain) or "").lower()
        wrong = fault(url.replace(PASSWORD, "canary-password")) or ""
        assert "invalid username-password" in wrong.lower()
        assert "canary" not in wrong
        assert "authenticat" in (fault(url.replace(f":{PASSWORD}@", "")) or "").lower()
        assert fault(plain.replace("rediss://", "redis://")), "TLS spoken to in clear"
        assert redis.Redis.from_url(url, ssl_cert_reqs=ssl.CERT_REQUIRED).ping()
