"""Every test that asks for `database` or `backend` runs on SQLite and on PostgreSQL."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from backends import make_backend
from servers import PostgresServer, run_postgresql
from sqlalchemy import text

from core.database.engine import open_engine
from core.database.migrate import upgrade
from core.database.schema import metadata
from core.database.session import Database
from core.services.backend import Backend


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


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A fresh schema; only the default project and the sweeper's lock are there."""
    if request.param == "sqlite":
        path = tmp_path / "preftune.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        database = Database(open_engine(f"sqlite:///{path}"))
        yield database
        database.close()
    else:
        database = request.getfixturevalue("postgresql_database")
        kept = ("projects", "sweeper_lock", "object_checks")
        tables = ", ".join(table for table in metadata.tables if table not in kept)
        database.write(lambda session: session.execute(text(f"TRUNCATE {tables}")))
        database.write(lambda session: session.execute(text("DELETE FROM projects WHERE id <> 'default'")))
        database.write(lambda session: session.execute(text("UPDATE sweeper_lock SET owner = '', expires_at = now()")))
        start = "UPDATE object_checks SET cursor = '', next_at = began_at, ended_at = NULL"
        database.write(lambda session: session.execute(text(start)))
        yield database


@pytest.fixture
def backend(database: Database, tmp_path: Path) -> Backend:
    return make_backend(tmp_path, database)
