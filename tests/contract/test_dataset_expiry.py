"""Datasets with a time to go: the database's clock decides, live jobs keep them, no new job takes them."""

import hashlib
from pathlib import Path

import pytest
from backends import PROJECT, claim, publication, submit
from sqlalchemy import update

from core.database.columns import database_after
from core.database.tables.datasets import Dataset
from core.domain.errors import InvalidRequest
from core.services.attempts import lifecycle
from core.services.backend import Backend
from core.services.datasets import datasets, intake, parts
from core.services.datasets.datasets import DatasetNotFound
from core.services.operations import garbage_collection
from core.services.operations.sweep import Sweeper
from core.storage import keys

HOUR = 3600
ROWS = b'{"prompt": "p", "chosen": "c", "rejected": "r"}\n'


def take(backend: Backend, folder: Path, seconds: int | None = HOUR) -> str:
    """A dataset of a file, with a time to go unless told otherwise."""
    path = folder / "rows.jsonl"
    path.write_bytes(ROWS)
    return intake.create(backend, PROJECT, intake.Upload(path=path, filename="rows.jsonl", seconds=seconds)).id


def let_time_pass(backend: Backend, dataset_id: str) -> None:
    past = update(Dataset).where(Dataset.id == dataset_id).values(expires_at=database_after(-1))
    backend.database.write(lambda session: session.execute(past))


def stored(backend: Backend, dataset_id: str) -> list[str]:
    return [info.key for info in backend.store.list(keys.dataset_prefix(PROJECT, dataset_id))]


def test_a_dataset_goes_with_its_objects_once_its_time_is_over(backend: Backend, tmp_path: Path) -> None:
    going, staying = take(backend, tmp_path), take(backend, tmp_path, seconds=None)
    view = datasets.get(backend, PROJECT, going)
    assert view.expires_at is not None
    assert (view.expires_at - view.created_at).total_seconds() == pytest.approx(HOUR, abs=1)
    assert datasets.get(backend, PROJECT, staying).expires_at is None
    sweeper = Sweeper(backend)
    sweeper.sweep()
    assert datasets.get(backend, PROJECT, going).id == going
    let_time_pass(backend, going)
    sweeper.sweep()
    with pytest.raises(DatasetNotFound):
        datasets.get(backend, PROJECT, going)
    while garbage_collection.collect(backend):
        continue
    assert stored(backend, going) == []
    assert len(stored(backend, staying)) == 3


def test_a_live_job_keeps_its_datasets_and_no_new_one_takes_them(backend: Backend, tmp_path: Path) -> None:
    rows, validation, others = take(backend, tmp_path), take(backend, tmp_path), take(backend, tmp_path)
    job = submit(backend, dataset_id=rows, validation_dataset_id=validation)
    for dataset_id in (rows, validation, others):
        let_time_pass(backend, dataset_id)
    assert datasets.delete_expired(backend) == 1
    assert {datasets.get(backend, PROJECT, kept).id for kept in (rows, validation)} == {rows, validation}
    with pytest.raises(InvalidRequest, match="has expired") as refused:
        submit(backend, dataset_id=rows)
    assert [error.pointer for error in refused.value.errors] == ["/dataset_id"]
    held = claim(backend)
    assert held.job_id == job.id
    assert datasets.delete_expired(backend) == 0
    lifecycle.finish_succeeded(held, publication(backend, held))
    assert datasets.delete_expired(backend) == 2
    assert datasets.delete_expired(backend) == 0


def test_many_that_are_needed_hold_up_none_that_is_not(
    backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "MAX_EXPIRED", 1)
    needed, free = take(backend, tmp_path), take(backend, tmp_path)
    submit(backend, dataset_id=needed)
    for dataset_id in (needed, free):
        let_time_pass(backend, dataset_id)
    assert datasets.delete_expired(backend) == 1
    assert datasets.get(backend, PROJECT, needed).id == needed


def test_the_file_of_an_upload_in_parts_has_its_time_from_its_creation(backend: Backend, tmp_path: Path) -> None:
    new = parts.NewUpload(num_bytes=len(ROWS), options={"kind": "preference"}, dataset_seconds=HOUR)
    upload = parts.create(backend, PROJECT, new)
    (tmp_path / "part").write_bytes(ROWS)
    part = parts.NewPart(number=1, path=tmp_path / "part", num_bytes=len(ROWS), sha256=hashlib.sha256(ROWS).hexdigest())
    parts.put_part(backend, PROJECT, upload.id, part)
    made = parts.complete(backend, PROJECT, upload.id)
    assert made.expires_at is not None
    assert (made.expires_at - made.created_at).total_seconds() == pytest.approx(HOUR, abs=1)
