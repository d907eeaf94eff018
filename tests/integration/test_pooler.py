"""Behind PgBouncer in transaction mode: a refused parameter is told, lost bounds are found, and statements work."""

import pwd
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from servers import PostgresServer, free_port, run_postgresql
from typer.testing import CliRunner

from cli.main import app
from core.database.migrate import upgrade
from core.services.backend import open_backend
from core.services.operations.diagnosis import diagnose
from core.settings import load_settings

PGBOUNCER = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin")
pytestmark = pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed")


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with run_postgresql() as found:
        yield found


@contextmanager
def pooler(folder: Path, server: PostgresServer, *options: str) -> Iterator[int]:
    port = free_port()
    folder.mkdir(mode=0o755)
    (folder / "users.txt").write_text('"postgres" ""\n')
    lines = [
        "[databases]",
        f"* = host=127.0.0.1 port={server.port}",
        "[pgbouncer]",
        f"listen_port = {port}",
        "listen_addr = 127.0.0.1",
        "auth_type = any",
        "auth_file = users.txt",
        "unix_socket_dir =",
        "pool_mode = transaction",
        *options,
    ]
    lines[1] += " user=postgres"
    (folder / "pgbouncer.ini").write_text("\n".join(lines) + "\n")
    assert PGBOUNCER is not None
    user = "nobody" if pwd.getpwuid(_own_uid()).pw_name == "root" else None
    process = subprocess.Popen([PGBOUNCER, "pgbouncer.ini"], cwd=folder, stderr=subprocess.DEVNULL, user=user)
    try:
        time.sleep(1.0)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def _own_uid() -> int:
    return Path("/proc/self").stat().st_uid


def test_a_refused_parameter_is_told(
    server: PostgresServer, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _open(tmp_path_factory)
    with pooler(folder, server) as port:
        monkeypatch.setenv("PREFTUNE_DATABASE_URL", f"postgresql://postgres@127.0.0.1:{port}/postgres")
        ended = CliRunner().invoke(app, ["migrate"])
    assert ended.exit_code == 1
    assert "unsupported startup parameter: options" in ended.output
    assert "Traceback" not in ended.output


def test_lost_bounds_are_found_and_statements_work(
    server: PostgresServer, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    direct = server.create_database("pooled")
    upgrade(direct)
    folder = _open(tmp_path_factory)
    with pooler(folder, server, "ignore_startup_parameters = options,extra_float_digits") as port:
        url = urlsplit(direct)._replace(netloc=f"postgres@127.0.0.1:{port}").geturl()
        backend = open_backend(load_settings(data_dir=tmp_path, database_url=url, broker_url="none"))
        try:
            lost = next(finding for finding in diagnose(backend) if finding.name == "database")
            assert lost.state == "warning"
            assert "statement_timeout" in lost.detail
            assert "ALTER ROLE" in lost.detail
            with psycopg.connect(direct, autocommit=True) as connection:
                for wanted in lost.detail[lost.detail.index("ALTER ROLE") :].rstrip("`").split("; "):
                    connection.execute(wanted.replace("<user>", "postgres"))  # type: ignore[arg-type]
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = 'pooled' AND pid <> pg_backend_pid()"
                )
            found = next(finding for finding in diagnose(backend) if finding.name == "database")
            assert found.state == "ok", found.detail
        finally:
            backend.close()
            with psycopg.connect(direct, autocommit=True) as connection:
                connection.execute("ALTER ROLE postgres RESET ALL")


def _open(factory: pytest.TempPathFactory) -> Path:
    """A folder that the pooler's own user may enter."""
    folder = factory.mktemp("pooler")
    for above in (folder, folder.parent, folder.parent.parent):
        above.chmod(0o755)
    return folder / "files"
