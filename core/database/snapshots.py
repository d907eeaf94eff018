"""Copies of a live database of one moment, and their way into an empty one.

SQLite: one file, by its backup API. PostgreSQL: a file for each table, in the text format of COPY, all out of one
transaction; the schema is not copied, since the migrations make it at any revision. A copy goes in within one
transaction, with what `then` does: nobody sees the rows before it.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, TypeVar

from psycopg.sql import SQL, Composed, Identifier
from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from core import outages
from core.database import migrate
from core.database.engine import WRITES, open_engine
from core.database.session import Database, DatabaseUnavailable
from core.durable_files import flush, new_private_file

SQLITE, POSTGRESQL = "sqlite", "postgresql"
_VERSION_TABLE = "alembic_version"
_ROWS_AT_ONCE = 20_000
"""Rows of one COPY into a database: an answer must come within the connection's bound."""

Result = TypeVar("Result")


class DatabaseNotEmpty(Exception):
    """Raised for a database that holds tables; the text is for the operator."""


@dataclass(frozen=True, kw_only=True)
class TableCopy:
    """The rows of a table, or of a whole SQLite file."""

    name: str
    columns: tuple[str, ...]
    path: Path


@dataclass(frozen=True, kw_only=True)
class DatabaseCopy:
    kind: str
    revision: str
    """Revision of the schema."""
    tables: tuple[TableCopy, ...]
    """In the order in which rows may be inserted."""


def take(database: Database, folder: Path, look: Callable[[Session], Result]) -> tuple[DatabaseCopy, Result]:
    """Copy the database into files below an empty folder; return what `look` finds in the copied rows.

    Writers go on meanwhile. Raises DatabaseUnavailable, and OSError for the folder.
    """
    try:
        if database.is_postgresql:
            return _take_postgresql(database, folder, look)
        return _take_sqlite(database, folder, look)
    except (OperationalError, sqlite3.Error) as error:
        outages.note("database", error)
        raise DatabaseUnavailable("The database does not answer; nothing of it was copied.") from error


def load(database_url: str, copy: DatabaseCopy, then: Callable[[Session], None]) -> None:
    """Put a copy into an empty database, bring it to this version's schema, and run `then`, in one transaction.

    Raises DatabaseNotEmpty, DatabaseUnavailable, SettingsError when the copy's schema is newer than this version.
    """
    engine = open_engine(database_url, pool_size=1)
    try:
        if engine.dialect.name == SQLITE:
            _load_sqlite(Path(str(engine.url.database)), copy, then)
            return
        with migrate.told(), engine.execution_options(**{WRITES: True}).begin() as connection:
            migrate.lock(connection)
            _require_no_tables(connection)
            migrate.to_revision(connection, copy.revision)
            for table in copy.tables:
                _copy_in(connection, table)
            _finish(connection, then)
    finally:
        engine.dispose()


def is_empty(database: Database) -> bool:
    """Whether the database has no table at all. Raises DatabaseUnavailable."""
    with migrate.told(), database.engine.connect() as connection:
        return not inspect(connection).get_table_names()


def _take_sqlite(database: Database, folder: Path, look: Callable[[Session], Result]) -> tuple[DatabaseCopy, Result]:
    path = folder / "preftune.db"
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    with closing(sqlite3.connect(str(database.engine.url.database))) as source, closing(sqlite3.connect(path)) as copy:
        source.backup(copy)
        (fault,) = copy.execute("PRAGMA quick_check").fetchone()
        (revision,) = copy.execute(f"SELECT version_num FROM {_VERSION_TABLE}").fetchone()
    if fault != "ok":
        raise DatabaseUnavailable(f"The database is damaged: {fault}. Nothing was copied; restore an earlier backup.")
    with _reading(path) as session:
        found = look(session)
    with closing(sqlite3.connect(path)) as copy:
        copy.execute("PRAGMA journal_mode=DELETE")  # one file, with nothing beside it
    flush(path)
    table = TableCopy(name=path.name, columns=(), path=path)
    return DatabaseCopy(kind=SQLITE, revision=revision, tables=(table,)), found


@contextmanager
def _reading(path: Path) -> Iterator[Session]:
    """A session on a SQLite file."""
    engine = open_engine(f"sqlite:///{path}", pool_size=1)
    try:
        with Session(engine) as session:
            yield session
    finally:
        engine.dispose()


def _take_postgresql(
    database: Database, folder: Path, look: Callable[[Session], Result]
) -> tuple[DatabaseCopy, Result]:
    options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    with database.engine.connect().execution_options(**options) as connection, connection.begin():
        for name in ("statement_timeout", "idle_in_transaction_session_timeout"):
            connection.execute(text(f"SET LOCAL {name} = 0"))
        revision = connection.execute(text(f"SELECT version_num FROM {_VERSION_TABLE}")).scalar_one()
        inspector = inspect(connection)
        names = [name for name, _ in inspector.get_sorted_table_and_fkc_names() if name and name != _VERSION_TABLE]
        tables = [
            TableCopy(
                name=name,
                columns=tuple(str(column["name"]) for column in inspector.get_columns(name)),
                path=folder / f"{name}.copy",
            )
            for name in names
        ]
        for table in tables:
            with new_private_file(table.path) as target:
                _copy_out(connection, table, target)
        found = look(Session(connection))
    return DatabaseCopy(kind=POSTGRESQL, revision=revision, tables=tuple(tables)), found


def _copy_out(connection: Connection, table: TableCopy, target: BinaryIO) -> None:
    driver = connection.connection.driver_connection
    assert driver is not None
    statement = SQL("COPY {} ({}) TO STDOUT").format(Identifier(table.name), _names(table))
    with driver.cursor() as cursor, cursor.copy(statement) as rows:
        for chunk in rows:
            target.write(chunk)


def _copy_in(connection: Connection, table: TableCopy) -> None:
    """Insert the rows; in the text format a line is a row, as line ends inside values are escaped."""
    driver = connection.connection.driver_connection
    assert driver is not None
    statement = SQL("COPY {} ({}) FROM STDIN").format(Identifier(table.name), _names(table))
    with table.path.open("rb") as source, driver.cursor() as cursor:
        while lines := list(islice(source, _ROWS_AT_ONCE)):
            with cursor.copy(statement) as rows:
                for line in lines:
                    rows.write(line)


def _names(table: TableCopy) -> Composed:
    return SQL(", ").join(map(Identifier, table.columns))


def _require_no_tables(connection: Connection) -> None:
    if names := inspect(connection).get_table_names():
        raise DatabaseNotEmpty(f"the database holds {len(names)} tables already; restore into an empty one")


def _finish(connection: Connection, then: Callable[[Session], None]) -> None:
    migrate.to_newest(connection)
    migrate.seed(connection)
    with Session(connection, join_transaction_mode="create_savepoint") as session, session.begin():
        then(session)


def _load_sqlite(path: Path, copy: DatabaseCopy, then: Callable[[Session], None]) -> None:
    """Prepare the file beside its place, and move it there last."""
    with migrate.told(), open_engine(f"sqlite:///{path}", pool_size=1).connect() as connection:
        _require_no_tables(connection)
        connection.engine.dispose()
    unfinished = path.with_name(path.name + ".restoring")
    _remove_sqlite(unfinished)
    with new_private_file(unfinished) as target, copy.tables[0].path.open("rb") as source:
        while chunk := source.read(1024 * 1024):
            target.write(chunk)
    engine = open_engine(f"sqlite:///{unfinished}", pool_size=1)
    try:
        with migrate.told(), engine.execution_options(**{WRITES: True}).begin() as connection:
            _finish(connection, then)
    finally:
        engine.dispose()
    flush(unfinished)
    _remove_sqlite(path)
    unfinished.rename(path)
    flush(path.parent)


def _remove_sqlite(path: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
