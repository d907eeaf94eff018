"""Migration of a database to this version's schema, once, however many processes start at the same time."""

import glob
import os
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, delete, event, inspect, select, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session

from core import outages
from core.database.engine import WRITES, open_engine
from core.database.repositories.bookkeeping import SWEEPER_LOCK, ensure_sweeper_lock
from core.database.repositories.object_checks import ensure_state
from core.database.repositories.projects import ensure_default_project
from core.database.session import DatabaseUnavailable
from core.database.tables.bookkeeping import SchemaSupport
from core.settings import SettingsError

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
_LOCK_KEY = 0x70726566
"""Key of PostgreSQL's advisory lock: "pref"."""


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
                to_revision(connection, "head")
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
    """Turn what a migration may meet into errors for the operator: SettingsError, DatabaseUnavailable."""
    try:
        yield
    except CommandError:
        raise SettingsError(
            "The database's schema is of a newer version of preftune than this one; install that version."
        ) from None
    except OperationalError as error:
        outages.note("database", error)
        raise DatabaseUnavailable("The database does not answer; its schema was left as it is.") from error


def to_revision(connection: Connection, revision: str) -> None:
    """Bring the schema up to a revision, in the connection's transaction. Raises CommandError for an unknown one."""
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def is_current(engine: Engine) -> bool:
    """Whether the database has this version's schema."""
    try:
        with engine.connect() as connection:
            heads = MigrationContext.configure(connection).get_current_heads()
    except DBAPIError as error:
        raise DatabaseUnavailable("The database does not answer.") from error
    return set(heads) == set(ScriptDirectory.from_config(_config()).get_heads())


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
    script = ScriptDirectory.from_config(_config())
    known = {revision.revision for revision in script.walk_revisions()}
    heads = set(MigrationContext.configure(connection).get_current_heads())
    if not heads or heads <= known or not inspect(connection).has_table(SchemaSupport.__tablename__):
        return False
    supported = set(connection.execute(select(SchemaSupport.revision)).scalars())
    return set(script.get_heads()) <= supported


def _copy_before(connection: Connection) -> None:
    """Copy a SQLite file to `<file>.before-<revision>`, the only way back."""
    path = connection.engine.url.database
    heads = MigrationContext.configure(connection).get_current_heads()
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
    script = ScriptDirectory.from_config(_config())
    known = {revision.revision for revision in script.walk_revisions()}
    return set(heads) <= known and set(heads) != set(script.get_heads())


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    return config


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
    revisions = [one.revision for one in ScriptDirectory.from_config(_config()).walk_revisions()]
    supported = {revision for revision in revisions if revision >= OLDEST_SUPPORTED}
    found = set(session.scalars(select(SchemaSupport.revision)))
    session.execute(delete(SchemaSupport).where(SchemaSupport.revision.in_(found - supported)))
    session.add_all(SchemaSupport(revision=revision) for revision in sorted(supported - found))
