"""A migrated SQLite database, a local store, and short times."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from backends import make_backend
from migrated import copy_migrated

from core.database.engine import open_engine
from core.database.session import Database
from core.services.backend import Backend


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Backend]:
    path = copy_migrated(tmp_path / "preftune.db")
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
