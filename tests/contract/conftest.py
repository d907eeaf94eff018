"""Every test that asks for `database` or `backend` runs on SQLite and on PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from backends import make_backend
from migrated import copy_migrated
from servers import PostgresServer, run_postgresql
from sqlalchemy import text
from sqlalchemy.orm import Session
from warm_processes import warm

from core.database.engine import open_engine
from core.database.migrate import upgrade
from core.database.schema import metadata
from core.database.session import Database
from core.datasets.check import check_process
from core.services.backend import Backend


@pytest.fixture(scope="module", autouse=True)
def warm_checks() -> Iterator[None]:
    """Checks of uploads are forked."""
    with warm(check_process):
        yield


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresServer]:
    with run_postgresql() as server:
        yield server


@pytest.fixture(scope="session")
def postgresql_database(postgresql: PostgresServer) -> Iterator[Database]:
    url = postgresql.create_database("contract")
    upgrade(url)
    database = Database(open_engine(url))
    yield database
    database.close()


KEPT = {"projects", "sweeper_lock", "object_checks"}
MANY_BYTES = 1 << 20
"""Of a table, from which on emptying it is quicker than deleting its rows."""
SIZES = text("SELECT relname, pg_relation_size(oid) FROM pg_class WHERE relname = ANY(:names) AND relkind = 'r'")
AS_AT_FIRST = (
    "DELETE FROM projects WHERE id <> 'default'",
    "UPDATE sweeper_lock SET owner = '', expires_at = now()",
    "UPDATE object_checks SET cursor = '', next_at = began_at, ended_at = NULL",
)


def make_empty(session: Session) -> None:
    """All tables at once take a fifth of a second; rows of the few that have some, a hundredth of that."""
    sizes = dict(session.execute(SIZES, {"names": sorted(metadata.tables.keys() - KEPT)}).tuples().all())
    used = [name for name, num_bytes in sizes.items() if num_bytes]
    if any(sizes[name] > MANY_BYTES for name in used):
        session.execute(text(f"TRUNCATE {', '.join(sizes)}"))
        used = []
    statements = [*(f"DELETE FROM {name}" for name in used), *AS_AT_FIRST]
    without_checks = "SET LOCAL session_replication_role = replica"  # of foreign keys
    session.execute(text(f"DO $$ BEGIN {without_checks}; {'; '.join(statements)}; END $$"))


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A fresh schema; only the default project and the sweeper's lock are there."""
    if request.param == "sqlite":
        path = copy_migrated(tmp_path / "preftune.db")
        database = Database(open_engine(f"sqlite:///{path}"))
        yield database
        database.close()
    else:
        database = request.getfixturevalue("postgresql_database")
        database.write(make_empty)
        yield database


@pytest.fixture
def backend(database: Database, tmp_path: Path) -> Backend:
    return make_backend(tmp_path, database)
