"""Migrations make exactly the schema that the tables describe, on both databases, however many start them."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from backends import make_backend
from servers import PostgresServer, run_postgresql
from sqlalchemy import Engine, text
from toy_jobs import (
    InProcessWorker,
    attempts_of,
    check_succeeded,
    submit_toy,
    view,
    wait_for_status,
    wait_for_step,
)
from toy_trainer import Script

from core.database import migrate
from core.database.engine import WRITES, open_engine
from core.database.migrate import is_current, is_usable, upgrade
from core.database.schema import metadata
from core.database.session import Database, DatabaseUnavailable
from core.settings import SettingsError

SQLITE_SCHEMA = (
    "SELECT type, name, sql FROM sqlite_master "
    "WHERE name <> 'alembic_version' AND sql IS NOT NULL AND type <> 'trigger'"
)
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
        connection.execute(text("DELETE FROM schema_support"))  # it has done more than add
        connection.commit()
    assert not is_current(engine)
    assert not is_usable(engine)
    with pytest.raises(SettingsError, match="newer version"):
        upgrade(urls[0])
    engine.dispose()


def test_a_database_that_is_not_there_is_told_so() -> None:
    with pytest.raises(DatabaseUnavailable):
        upgrade("postgresql://postgres@127.0.0.1:9/nothing")


NEXT_VERSION = '''
"""What a next version might add"""

import sqlalchemy as sa
from alembic import op

revision = "9000"
down_revision = "{newest}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("colour", sa.Text(), nullable=True))
    op.add_column("metric_points", sa.Column("weight", sa.Integer(), nullable=False, server_default="1"))
    op.create_table("colours", sa.Column("job_id", sa.String(64), sa.ForeignKey("jobs.id"), primary_key=True))
    op.create_index("ix_jobs_colour", "jobs", ["colour"])
'''


def test_old_workers_go_on_under_a_new_schema(
    urls: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it is migrated and after; what starts with the old version from then on works too."""
    upgrade(urls[0])
    database = Database(open_engine(urls[0]))
    backend = make_backend(tmp_path, database, lease_seconds=6, heartbeat_seconds=0.2, poll_seconds=0.1)
    script = Script(steps=30, step_seconds=0.02, checkpoint_every=5)
    ids = [submit_toy(backend, script, reuse=False) for _ in range(3)]
    newer = tmp_path / "migrations"
    shutil.copytree(migrate._MIGRATIONS, newer)
    newest = max(path.name[:4] for path in (newer / "versions").glob("*.py"))
    (newer / "versions" / "9000_next.py").write_text(NEXT_VERSION.format(newest=newest))
    with InProcessWorker(backend):
        wait_for_step(backend, ids[0], "dpo", 5)
        assert view(backend, ids[0]).status.value == "running"
        with monkeypatch.context() as patch:
            patch.setattr(migrate, "_MIGRATIONS", newer)
            upgrade(urls[0])
            assert is_current(database.engine)
        assert (is_current(database.engine), is_usable(database.engine)) == (False, True)
        upgrade(urls[0])
        assert not is_current(database.engine), "an old version that starts leaves the newer schema as it is"
        for job_id in ids:
            wait_for_status(backend, job_id, "succeeded", "failed", "cancelled")
    for job_id in ids:
        check_succeeded(backend, job_id, script)
        assert len(attempts_of(backend, job_id)) == 1, "no attempt was lost to the migration"
    database.write(lambda session: session.execute(text("DELETE FROM schema_support WHERE revision < '9000'")))
    assert not is_usable(database.engine), "a newer schema that does more than add ends the support of old versions"
    with pytest.raises(SettingsError, match="newer version"):
        upgrade(urls[0])
    with database.engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM jobs WHERE colour IS NULL")) == len(ids)
        assert connection.scalar(text("SELECT min(weight) FROM metric_points")) == 1
    database.close()


def test_few_copies_of_a_sqlite_file_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "preftune.db"
    engine = open_engine(f"sqlite:///{path}")
    with engine.execution_options(**{WRITES: True}).begin() as connection:
        migrate.to_revision(connection, "0015")
    engine.dispose()
    for day in range(5):
        old = tmp_path / f"preftune.db.before-000{day}"
        old.touch()
        os.utime(old, (day, day))
    upgrade(f"sqlite:///{path}")
    kept = {one.name.removeprefix("preftune.db.before-") for one in tmp_path.glob("preftune.db.before-*")}
    assert kept == {"0003", "0004", "0015"}
