"""Transactions: units of work that are run again when the database was only briefly away.

A unit may run more than once, even after a commit whose answer was lost. So whatever it writes must be safe to repeat:
rows are inserted under keys chosen before, and moves are compare-and-set.
"""

import random
import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session, sessionmaker

from core import outages
from core.database.engine import WRITES
from core.domain.errors import Unavailable

MAX_TRIES = 4
_FIRST_PAUSE_SECONDS = 0.05
_TRANSIENT_SQLSTATES = ("08", "40001", "40P01", "53300", "55P03", "57P0")
_FINAL_SQLITE_WORDS = ("no such", "disk is full", "readonly", "malformed", "unable to open")

_REFUSAL_WORDS = (
    "authentication failed",
    "no password supplied",
    "does not exist",
    "no pg_hba.conf entry",
    "unsupported startup parameter",
    "unrecognized configuration parameter",
    "invalid connection option",
    "certificate",
    "ssl is not enabled",
    "does not support ssl",
    "ssl error",
)
Result = TypeVar("Result")


class DatabaseUnavailable(Unavailable):
    code = "database-unavailable"
    title = "The database does not answer"


class Database:
    """One database: `read` and `write` run a unit of work in a transaction of its own.

    Both see one snapshot. A writer on SQLite holds the write lock from its start; writers on PostgreSQL lock rows.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        readers = engine.execution_options(isolation_level="REPEATABLE READ") if self.is_postgresql else engine
        self._readers = sessionmaker(readers, expire_on_commit=False, autoflush=False)
        self._writers = sessionmaker(engine.execution_options(**{WRITES: True}), expire_on_commit=False)

    @property
    def is_postgresql(self) -> bool:
        return self.engine.dialect.name == "postgresql"

    def read(self, work: Callable[[Session], Result]) -> Result:
        """Run `work` and return its value. Raises Unavailable when the database stays away, and what `work` raises."""
        return self._run(self._readers, work)

    def write(self, work: Callable[[Session], Result]) -> Result:
        """Run `work` like `read`, and commit. `work` may be run again; see the module."""
        return self._run(self._writers, work)

    def close(self) -> None:
        self.engine.dispose()

    def _run(self, sessions: sessionmaker[Session], work: Callable[[Session], Result]) -> Result:
        for remaining in reversed(range(MAX_TRIES)):
            try:
                with sessions.begin() as session:
                    return work(session)
            except (DBAPIError, PoolTimeout) as error:
                if not is_outage(error):
                    raise
                if not remaining or not is_transient(error):
                    outages.note("database", error)
                    raise DatabaseUnavailable(_detail_of(error)) from error
            time.sleep(_FIRST_PAUSE_SECONDS * 2 ** (MAX_TRIES - 1 - remaining) * (0.5 + random.random()))
        raise AssertionError("unreachable")


def _detail_of(error: DBAPIError | PoolTimeout) -> str:
    if is_refusal(error):
        return "The database refuses this service; its operator finds the reason in the log and by `preftune doctor`."
    return "The database does not answer; try again in a moment."


def is_refusal(error: DBAPIError | PoolTimeout) -> bool:
    """Whether a retry would fail too: a wrong password, an unknown database, a certificate, a refused parameter."""
    text = str(getattr(error, "orig", error)).lower()
    return any(word in text for word in _REFUSAL_WORDS)


def is_outage(error: DBAPIError | PoolTimeout) -> bool:
    """Whether the database's state failed, not the statement."""
    return isinstance(error, OperationalError | InterfaceError | PoolTimeout) or is_transient(error)


def is_transient(error: DBAPIError | PoolTimeout) -> bool:
    """Whether an immediate retry is worthwhile."""
    if isinstance(error, PoolTimeout):
        return False
    if error.connection_invalidated:
        return True
    sqlstate = getattr(error.orig, "sqlstate", None)
    if sqlstate:
        return str(sqlstate).startswith(_TRANSIENT_SQLSTATES)
    return isinstance(error, OperationalError) and not any(word in str(error.orig) for word in _FINAL_SQLITE_WORDS)
