"""A migrated SQLite database, a local store, and short times."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from backends import make_backend

from core.database.engine import open_engine
from core.database.migrate import upgrade
from core.database.session import Database
from core.services.backend import Backend


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "template.db"
    upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
def backend(template: Path, tmp_path: Path) -> Iterator[Backend]:
    path = tmp_path / "preftune.db"
    shutil.copy(template, path)
    database = Database(open_engine(f"sqlite:///{path}"))
    yield make_backend(
        tmp_path,
        database,
        lease_seconds=0.6,
        heartbeat_seconds=0.1,
        sweep_seconds=0.2,
        poll_seconds=0.1,
        stop_grace_seconds=6.0,
        broker_url="none",
        device="cpu",
        num_threads=1,
    )
    database.close()
