"""A streaming replica of a test's PostgreSQL that can be promoted."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
from servers import PostgresServer, as_server_user, free_port


@contextmanager
def run_copy(source: PostgresServer, follow: int | None = None) -> Iterator[PostgresServer]:
    """A server with the data that the source has now; with `follow`, a standby that streams from that port."""
    work = Path(tempfile.mkdtemp(prefix="preftune-postgresql-"))
    try:
        shutil.chown(work, Path(source.work).owner())
        address = f"host=127.0.0.1 user=postgres port={source.port if follow is None else follow}"
        command = [str(source.folder / "pg_basebackup"), "-D", str(work / "data"), "-c", "fast", "-N", "-X", "stream"]
        as_server_user([*command, "-d", address, *(() if follow is None else ("-R",))])
        server = replace(source, port=free_port(), work=work)
        server.start()
        try:
            yield server
        finally:
            server.kill()
    finally:
        shutil.rmtree(work, ignore_errors=True)


def promote(standby: PostgresServer) -> None:
    """Ends once the standby takes writes."""
    with psycopg.connect(standby.url("postgres"), autocommit=True) as connection:
        connection.execute("SELECT pg_promote(true, 30)")


def has_caught_up(primary: PostgresServer, standby: PostgresServer) -> bool:
    """Whether the standby shows all that the primary has committed."""
    with psycopg.connect(primary.url("postgres"), autocommit=True) as connection:
        wanted = connection.execute("SELECT pg_current_wal_insert_lsn()").fetchone()
    with psycopg.connect(standby.url("postgres"), autocommit=True) as connection:
        found = connection.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", wanted).fetchone()
    return found is not None and bool(found[0])
