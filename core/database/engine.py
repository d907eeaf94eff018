"""Engines for the two databases, chosen by URL.

SQLite: WAL, so that readers never wait; writers take the write lock when they begin, so that none fails half-way.
PostgreSQL: psycopg 3, every wait bounded.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import ConnectionPoolEntry

from core.database.patient_connection import PatientConnection, PatientCursor
from core.settings import SettingsError

WRITES = "preftune_writes"
"""Execution option of connections whose transactions write."""

_SQLITE_PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
    "PRAGMA busy_timeout=10000",
)
POSTGRESQL_TIMEOUTS = {
    "statement_timeout": 15_000,
    "lock_timeout": 5_000,
    "idle_in_transaction_session_timeout": 20_000,
}
"""Milliseconds, asked for when a connection begins; a pooler may drop them, which the doctor finds."""
_POSTGRESQL_OPTIONS = " ".join(
    ["-c timezone=UTC", *(f"-c {name}={milliseconds}" for name, milliseconds in POSTGRESQL_TIMEOUTS.items())]
)


def parse_url(text: str) -> URL:
    """Parse a URL; raises SettingsError for one of another database."""
    try:
        url = make_url(text)
    except ArgumentError:
        raise SettingsError("PREFTUNE_DATABASE_URL: not a URL such as postgresql://user@host/name") from None
    if url.drivername in ("postgresql", "postgres"):
        return url.set(drivername="postgresql+psycopg")
    if url.drivername in ("sqlite", "sqlite+pysqlite") and url.database not in (None, "", ":memory:"):
        return url.set(drivername="sqlite+pysqlite")
    if url.drivername == "postgresql+psycopg":
        return url
    raise SettingsError("PREFTUNE_DATABASE_URL: only postgresql://… and sqlite:///<file> are supported")


def open_engine(
    database_url: str, *, pool_size: int = 16, current_url: Callable[[], str | None] | None = None
) -> Engine:
    """Open an engine; `current_url` is asked for user and password whenever a connection to PostgreSQL is made."""
    url = parse_url(database_url)
    if url.get_backend_name() == "sqlite":
        return _open_sqlite(url, pool_size)
    engine = create_engine(
        url,
        pool_pre_ping=True,
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_timeout=10,
        pool_recycle=1800,
        hide_parameters=True,
        json_serializer=_dump_json,
        json_deserializer=orjson.loads,
        connect_args={
            "connect_timeout": 3,
            "options": _POSTGRESQL_OPTIONS,
            "application_name": "preftune",
            "tcp_user_timeout": 10_000,
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 2,
            "target_session_attrs": "read-write",
            # Statements that are prepared by themselves fail behind poolers that give each transaction another server.
            "prepare_threshold": None,
        },
    )
    engine.dialect.use_insertmanyvalues_wo_returning = True  # many rows in one statement, as no pipeline is used
    event.listen(engine, "do_connect", partial(_connect_postgresql, current_url))
    return engine


def _connect_postgresql(
    current_url: Callable[[], str | None] | None,
    _dialect: Any,
    _record: ConnectionPoolEntry,
    arguments: Any,
    options: dict[str, Any],
) -> Any:
    url = current_url() if current_url is not None else None
    if url is not None:
        fresh = parse_url(url)
        found = {"user": fresh.username, "password": fresh.password}
        options = options | {name: value for name, value in found.items() if value is not None}
    return PatientConnection.connect(*arguments, cursor_factory=PatientCursor, **options)


def _open_sqlite(url: URL, pool_size: int) -> Engine:
    assert url.database is not None
    path = Path(url.database)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileExistsError):  # SQLite gives its other files the mode of this one
        path.touch(mode=0o600, exist_ok=False)
    engine = create_engine(
        url,
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_timeout=10,
        hide_parameters=True,  # they are prompts, names and hashes, and errors go to the log
        json_serializer=_dump_json,
        json_deserializer=orjson.loads,
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: ConnectionPoolEntry) -> None:
    # The driver's own transaction handling would delay BEGIN until the first write.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in _SQLITE_PRAGMAS:
        cursor.execute(pragma)
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _dump_json(value: Any) -> str:
    return orjson.dumps(value).decode()
