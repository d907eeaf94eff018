"""An attempt that waits for the object store says so where users look, once."""

from pathlib import Path

import pytest
from backends import PROJECT, add_dataset, checkpoint, claim, lose, make_backend, make_due, submit
from toy_jobs import events

from core.database.engine import open_engine
from core.database.migrate import upgrade
from core.database.session import Database
from core.services.backend import Backend
from core.storage.object_store import StoreUnavailable
from core.storage.trees import TreeDamaged
from worker import patience
from worker.attempt.inputs import fetcher
from worker.attempt.inputs.fetcher import Fetcher


@pytest.fixture
def backend(tmp_path: Path) -> Backend:
    url = f"sqlite:///{tmp_path / 'preftune.db'}"
    upgrade(url)
    backend = make_backend(tmp_path, Database(open_engine(url)))
    add_dataset(backend)
    return backend


@pytest.mark.parametrize(("num_failures", "num_told"), [(1, 0), (2, 1), (6, 1)])
def test_waiting_for_the_store_is_an_event(
    backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_failures: int, num_told: int
) -> None:
    monkeypatch.setattr(patience, "pause_seconds", lambda num_failures: 0.0)
    job_id = submit(backend).id
    held = claim(backend)
    checkpoint(backend, held, 1)
    lose(backend, held)
    make_due(backend)
    left = [StoreUnavailable("The object store does not answer as it should; try again in a moment.")] * num_failures

    def fetch(*_: object, **__: object) -> None:
        if left:
            raise left.pop()
        raise TreeDamaged("as every played checkpoint")

    monkeypatch.setattr(fetcher, "fetch_tree", fetch)
    resumed = Fetcher(claim=claim(backend), work_dir=tmp_path, check=lambda: None)
    assert resumed.fetch_resume_point() is None
    told = [event for event in events(backend, job_id) if event.kind == "waiting_for_store"]
    assert [event.level for event in told] == ["warning"] * num_told
    assert all(event.message.startswith("Waits for the object store: ") for event in told)
    assert all(event.project_id == PROJECT for event in told)
