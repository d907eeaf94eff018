"""A migrated SQLite database, a local store, and a base model that trains within seconds."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from backends import BASE_MODEL, make_backend
from migrated import copy_migrated
from tiny_models import make_tiny_model
from warm_processes import warm

from core.database.engine import open_engine
from core.database.session import Database
from core.services.backend import Backend
from worker.light import lane


@pytest.fixture(scope="module", autouse=True)
def warm_lane() -> Iterator[None]:
    """Programs of the light lane are forked."""
    with warm(lane):
        yield


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("models") / BASE_MODEL)


@pytest.fixture
def backend(tiny_model: Path, tmp_path: Path) -> Iterator[Backend]:
    path = copy_migrated(tmp_path / "preftune.db")
    database = Database(open_engine(f"sqlite:///{path}"))
    backend = make_backend(
        tmp_path,
        database,
        lease_seconds=6.0,
        heartbeat_seconds=0.2,
        sweep_seconds=0.5,
        poll_seconds=0.1,
        stop_grace_seconds=20.0,
        broker_url="none",
        device="cpu",
        num_threads=1,
    )
    folder = backend.settings.models_dir / BASE_MODEL
    shutil.rmtree(folder)
    shutil.copytree(tiny_model, folder)
    yield backend
    database.close()
