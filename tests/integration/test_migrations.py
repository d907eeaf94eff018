"""Migrations make exactly the schema that the tables describe, on both databases, however many start them."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import PostgresServer, run_postgresql
from sqlalchemy import Engine, text

from core.database.engine import open_engine
from core.database.migrate import is_current, upgrade
from core.database.schema import metadata
from core.database.session import DatabaseUnavailable
from core.settings import SettingsError

SQLITE_SCHEMA = "SELECT type, name, sql FROM sqlite_master WHERE name <> 'alembic_version' AND sql IS NOT NULL"
POSTGRESQL_SCHEMA = (
    """SELECT table_name, column_name, data_type, is_nullable, character_maximum_length, column_default
       FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> 'alembic_version'""",
    """SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
       WHERE connamespace = 'public'::regnamespace AND conrelid::regclass::text <> 'alembic_version'""",
    "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'alembic_version'",
)


@pytest.fixture(scope="module")
def postgresql() -> Iterator[PostgresServer]:
    with run_postgresql() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def urls(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Two empty databases."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/one.db", f"sqlite:///{tmp_path}/two.db"
        return
    server = request.getfixturevalue("postgresql")
    yield server.create_database("one"), server.create_database("two")
    server.drop_database("one")
    server.drop_database("two")


def describe(engine: Engine) -> list[Any]:
    """The schema as the database itself tells it, in an order of its own."""
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            return [sorted(map(str, connection.execute(text(query)))) for query in POSTGRESQL_SCHEMA]
        return sorted((kind, name, words(sql)) for kind, name, sql in connection.execute(text(SQLITE_SCHEMA)))


def words(sql: str) -> list[str]:
    """Of a statement: its parts between commas, whatever their order (columns are added last) and spaces."""
    head, _, body = sql.partition("(")
    parts, depth = [""], 0
    for character in body.strip().removesuffix(")"):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [head.strip(), *sorted(" ".join(part.split()) for part in parts)]


def test_a_migrated_schema_is_the_schema_of_the_tables(urls: tuple[str, str]) -> None:
    upgrade(urls[0])
    migrated, described = open_engine(urls[0]), open_engine(urls[1])
    metadata.create_all(described)
    assert is_current(migrated)
    assert not is_current(described)
    assert describe(migrated) == describe(described)
    migrated.dispose()
    described.dispose()


def test_many_may_start_it_at_once_and_again(urls: tuple[str, str]) -> None:
    code = "import sys; from core.database.migrate import upgrade; upgrade(sys.argv[1])"
    root = Path(__file__).resolve().parents[2]
    processes = [
        subprocess.Popen([sys.executable, "-c", code, urls[0]], cwd=root, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    engine = open_engine(urls[0])
    assert is_current(engine)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM projects")) == 1
        assert connection.scalar(text("SELECT count(*) FROM sweeper_lock")) == 1
    engine.dispose()


def test_a_database_of_a_newer_version_is_left_alone(urls: tuple[str, str]) -> None:
    upgrade(urls[0])
    engine = open_engine(urls[0])
    with engine.connect() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        connection.commit()
    assert not is_current(engine)
    with pytest.raises(SettingsError, match="newer version"):
        upgrade(urls[0])
    engine.dispose()


def test_a_database_that_is_not_there_is_told_so() -> None:
    with pytest.raises(DatabaseUnavailable):
        upgrade("postgresql://postgres@127.0.0.1:9/nothing")
