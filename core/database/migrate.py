"""Migration of a database to this version's schema, once, however many processes start at the same time."""

import glob
import logging
import os
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, column, delete, event, inspect, select, table, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session

from core import outages
from core.database.engine import WRITES, open_engine
from core.database.repositories.bookkeeping import SWEEPER_LOCK, ensure_sweeper_lock
from core.database.repositories.object_checks import ensure_state
from core.database.repositories.projects import ensure_default_project
from core.database.session import DatabaseUnavailable
from core.database.tables.bookkeeping import SchemaSupport

_MIGRATIONS = Path(__file__).resolve().parents[2] / "migrations"
"""Beside `core`, in the repository and where the package is installed."""
OLDEST_SUPPORTED = "0023"
"""Versions from this revision on may work with this version's schema: since then migrations have only added. One that
does more raises it to the revision before itself, whose version no longer needs what goes."""
MAX_WAIT_SECONDS = 120
"""For the migration of another process."""
MAX_COPIES = 3
"""Copies of a SQLite file before migrations that are kept, the newest."""
_COPY_SUFFIX = ".before-"
_VERSION = table("alembic_version", column("version_num"))
_LOCK_KEY = 0x70726566
"""Key of PostgreSQL's advisory lock: "pref"."""

_log = logging.getLogger(__name__)


def upgrade(database_url: str) -> None:
    """Create or update the schema. Concurrent callers wait, and then find it done.

    A newer schema that this version may work with stays as it is. Raises SettingsError for any other newer one,
    DatabaseUnavailable when there is no database.
    """
    engine = open_engine(database_url, pool_size=1)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _wait_long)
    try:
        with told(), engine.execution_options(**{WRITES: True}).begin() as connection:
            lock(connection)
            if not _is_newer_and_usable(connection):
                _copy_before(connection)
                to_newest(connection)
                seed(connection)
    except (sqlite3.Error, OSError) as error:
        outages.note("database", error)
        raise DatabaseUnavailable("No copy could be made before the migration; the schema is as it was.") from error
    finally:
        engine.dispose()


def _wait_long(connection: sqlite3.Connection, _record: object) -> None:
    """Wait for another process's migration as long as on PostgreSQL."""
    connection.execute(f"PRAGMA busy_timeout = {MAX_WAIT_SECONDS * 1000}")


@contextmanager
def told() -> Iterator[None]:
    """Turn what a migration may meet into an error for the operator: DatabaseUnavailable."""
    try:
        yield
    except OperationalError as error:
        outages.note("database", error)
        raise DatabaseUnavailable("The database does not answer; its schema was left as it is.") from error


def to_revision(connection: Connection, revision: str) -> None:
    """Bring the schema up to a revision, in the connection's transaction. Raises SettingsError for an unknown one."""
    if _heads(connection) != {revision}:
        from core.database import alembic_upgrade  # noqa: PLC0415 - see LOCAL_IMPORTS

        alembic_upgrade.to_revision(connection, revision, _MIGRATIONS)


def to_newest(connection: Connection) -> None:
    """Bring the schema to this version's, in the connection's transaction. Raises SettingsError for a newer one."""
    newest, before = _revisions()[-1], _heads(connection)
    to_revision(connection, newest)
    if before != {newest}:
        _log.info("the database has schema %s now (before: %s)", newest, ", ".join(before) or "none")


def is_current(engine: Engine) -> bool:
    """Whether the database has this version's schema."""
    try:
        with engine.connect() as connection:
            return _heads(connection) == {_revisions()[-1]}
    except DBAPIError as error:
        raise DatabaseUnavailable("The database does not answer.") from error


def is_usable(engine: Engine) -> bool:
    """Whether this version may work with the database's schema: its own, or a newer one that has only been added to."""
    if is_current(engine):
        return True
    try:
        with engine.connect() as connection:
            return _is_newer_and_usable(connection)
    except DBAPIError as error:
        raise DatabaseUnavailable("The database does not answer.") from error


def _is_newer_and_usable(connection: Connection) -> bool:
    revisions, heads = _revisions(), _heads(connection)
    if not heads or heads.issubset(revisions) or not inspect(connection).has_table(SchemaSupport.__tablename__):
        return False
    supported = set(connection.execute(select(SchemaSupport.revision)).scalars())
    return revisions[-1] in supported


def _copy_before(connection: Connection) -> None:
    """Copy a SQLite file to `<file>.before-<revision>`, the only way back."""
    path = connection.engine.url.database
    heads = _heads(connection)
    if connection.dialect.name != "sqlite" or not path or not heads or not _is_behind(heads):
        return
    target = Path(f"{path}{_COPY_SUFFIX}{'-'.join(sorted(heads))}")
    if target.exists():
        return
    unfinished = target.with_name(target.name + ".tmp")
    unfinished.unlink(missing_ok=True)
    os.close(os.open(unfinished, os.O_CREAT | os.O_WRONLY, 0o600))
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(unfinished)) as copy:
        source.backup(copy)
    unfinished.rename(target)
    _forget_old_copies(target)


def _forget_old_copies(newest: Path) -> None:
    stem = newest.name.partition(_COPY_SUFFIX)[0] + _COPY_SUFFIX
    copies = sorted(
        (path for path in newest.parent.glob(f"{glob.escape(stem)}*") if path.suffix != ".tmp"),
        key=lambda path: path.stat().st_mtime,
    )
    for path in copies[:-MAX_COPIES]:
        path.unlink(missing_ok=True)


def _is_behind(heads: Collection[str]) -> bool:
    revisions = _revisions()
    return set(heads).issubset(revisions) and set(heads) != {revisions[-1]}


def _heads(connection: Connection) -> set[str]:
    """Return the revision that the database says it has; empty before its first migration."""
    if not inspect(connection).has_table(_VERSION.name):
        return set()
    return set(connection.scalars(select(_VERSION.c.version_num)))


def _revisions() -> list[str]:
    """Return this version's revisions, the newest last: the numbers that names of migrations begin with."""
    return sorted(path.name.partition("_")[0] for path in (_MIGRATIONS / "versions").glob("[0-9]*.py"))


def lock(connection: Connection) -> None:
    """Lock out other migrations; on SQLite the transaction itself is the lock."""
    if connection.dialect.name != "postgresql":
        return
    connection.execute(text("SET LOCAL statement_timeout = 0"))
    connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
    connection.execute(text(f"SET LOCAL lock_timeout = '{MAX_WAIT_SECONDS}s'"))
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
    # Waiting longer for a table would stop everybody behind us.
    connection.execute(text("SET LOCAL lock_timeout = '10s'"))


def seed(connection: Connection) -> None:
    """Insert the rows that every database has."""
    with Session(connection, join_transaction_mode="create_savepoint") as session, session.begin():
        ensure_default_project(session)
        ensure_sweeper_lock(session, SWEEPER_LOCK)
        ensure_state(session)
        _note_support(session)


def _note_support(session: Session) -> None:
    """Write down which versions may work with the schema, for processes that do not know it."""
    supported = {revision for revision in _revisions() if revision >= OLDEST_SUPPORTED}
    found = set(session.scalars(select(SchemaSupport.revision)))
    session.execute(delete(SchemaSupport).where(SchemaSupport.revision.in_(found - supported)))
    session.add_all(SchemaSupport(revision=revision) for revision in sorted(supported - found))
