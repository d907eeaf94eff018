"""Objects that the store has lost are found before a user asks: slowly by the service, at once by a command."""

import json
from pathlib import Path

import pytest
from backends import PROJECT, add_dataset, checkpoint_with_policy, claim, publication, submit
from sqlalchemy import text
from toy_jobs import events

from core.database.repositories import object_checks as rows
from core.services.attempts import lifecycle
from core.services.backend import Backend
from core.services.datasets import datasets, intake
from core.services.jobs import artifacts
from core.services.operations import object_checks
from core.services.operations.statistics import read_statistics
from core.services.operations.sweep import Sweeper
from core.storage import keys


@pytest.fixture
def job_id(backend: Backend) -> str:
    """A finished job with an artifact of two files, and a dataset without objects."""
    dataset_id = add_dataset(backend)
    for key, content in (("original", b"x"), ("rows.jsonl", b"{}\n"), ("issues.jsonl", b"")):
        backend.store.put_bytes(keys.dataset_prefix(PROJECT, dataset_id) + key, content)
    job_id = submit(backend).id
    held = claim(backend)
    lifecycle.begin(held)
    lifecycle.finish_succeeded(held, publication(backend, held, ("config.json", "model.safetensors")))
    return job_id


def key_of(backend: Backend, job_id: str, path: str) -> str:
    return next(file.key for file in artifacts.get(backend, PROJECT, job_id).files if file.path == path)


def pass_through(backend: Backend) -> int:
    """Every step of one pass; how many things were looked at."""
    for number in range(100):
        if not object_checks.step(backend, seconds=0):
            return number
    raise AssertionError("the pass does not end")


def test_a_missing_object_is_told_of(backend: Backend, job_id: str) -> None:
    key = key_of(backend, job_id, "model.safetensors")
    assert pass_through(backend) == 2, "the dataset and the artifact"
    assert read_statistics(backend).num_lost_objects == 0
    backend.store.delete(key)
    pass_through(backend)
    assert read_statistics(backend).num_lost_objects == 1
    for _ in range(2):
        (told,) = (event for event in events(backend, job_id) if event.kind == "object_damaged")
        assert told.message == "artifact/model.safetensors is missing in the object store."
        pass_through(backend)  # and not again
    backend.store.put_bytes(key, b"weights")
    pass_through(backend)
    assert read_statistics(backend).num_lost_objects == 0


def test_objects_of_another_size_are_told_of(backend: Backend, job_id: str) -> None:
    backend.store.put_bytes(key_of(backend, job_id, "config.json"), b"cut")
    pass_through(backend)
    assert [one.what for one in backend.database.read(lambda session: rows.list_lost(session, 10))] == ["damaged"]


def test_looks_are_bounded_for_all_processes_together_and_resume(backend: Backend, job_id: str) -> None:
    assert object_checks.step(backend, seconds=60)
    assert not any(object_checks.step(backend, seconds=60) for _ in range(5)), "whoever asks, within the minute"
    backend.database.write(lambda session: session.execute(text("UPDATE object_checks SET next_at = began_at")))
    backend.store.delete(key_of(backend, job_id, "config.json"))
    assert object_checks.step(backend, seconds=60), "another process goes on behind the dataset"
    assert read_statistics(backend).num_lost_objects == 1


def test_what_was_deleted_meanwhile_is_not_lost(backend: Backend, job_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    look = object_checks._look
    key = key_of(backend, job_id, "config.json")

    def delete_first(backend: Backend, thing: rows.Thing, *, is_deep: bool) -> object_checks.Look:
        if thing.is_job and backend.store.get_bytes(key):
            artifacts.delete(backend, PROJECT, job_id)
            backend.store.delete(key)
        return look(backend, thing, is_deep=is_deep)

    monkeypatch.setattr(object_checks, "_look", delete_first)
    pass_through(backend)
    assert read_statistics(backend).num_lost_objects == 0
    assert "object_damaged" not in [event.kind for event in events(backend, job_id)]


def test_losses_of_what_is_no_more_are_forgotten(backend: Backend, job_id: str) -> None:
    backend.store.delete(key_of(backend, job_id, "config.json"))
    pass_through(backend)
    artifacts.delete(backend, PROJECT, job_id)
    pass_through(backend)
    pass_through(backend)
    assert read_statistics(backend).num_lost_objects == 0


def test_every_byte_is_compared_when_asked(backend: Backend, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    row = {"prompt": "p", "chosen": "a", "rejected": "b"}
    path.write_text("".join(json.dumps(row | {"prompt": f"p{n}"}) + "\n" for n in range(20)))
    made = datasets.get(backend, PROJECT, take_in(backend, path))
    job_id = submit(backend, dataset_id=made.id).id
    held = claim(backend)
    checkpoint_with_policy(backend, held, 1, {"model.safetensors": b"weights"})
    lifecycle.finish_succeeded(held, publication(backend, held))
    flipped = keys.dataset_rows(PROJECT, made.id)
    backend.store.put_bytes(flipped, backend.store.get_bytes(flipped).replace(b"p1", b"p2", 1))
    quick = [loss.key for _, losses in object_checks.check_all(backend, is_deep=False) for loss in losses]
    deep = {loss.key: loss.what for _, losses in object_checks.check_all(backend) for loss in losses}
    assert flipped not in quick
    assert deep[flipped] == "damaged"
    of_checkpoint = [key for key in deep if f"{job_id}/" in key]
    assert all("/checkpoints/" in key for key in of_checkpoint), "the played checkpoint's manifest is not a real one"


def take_in(backend: Backend, path: Path) -> str:
    return intake.create(backend, PROJECT, intake.Upload(path=path, filename=path.name)).id


def test_the_sweeper_looks(backend: Backend, job_id: str) -> None:
    sweeper = Sweeper(backend)
    sweeper.sweep()
    cursor = backend.database.read(lambda session: session.scalar(text("SELECT cursor FROM object_checks")))
    assert str(cursor).startswith("datasets:")
