"""Rows that are trained on are those that were checked: damaged ones are found, and made anew of the upload."""

import json
from pathlib import Path

import pytest
from backends import PROJECT, claim, submit

from core.database.repositories import datasets as dataset_rows
from core.domain.jobs.failure_codes import FailureCode
from core.services.attempts.claimed_job import ClaimedJob
from core.services.attempts.inputs import find_inputs
from core.services.backend import Backend
from core.services.datasets import datasets, intake
from core.services.datasets.row_pages import RowsQuery
from core.services.jobs import events, steering
from core.services.operations import garbage_collection
from core.storage import keys
from core.storage.object_store import StoreUnavailable
from core.storage.trees import file_sha256
from worker.attempt.failures import StagingFailed
from worker.attempt.inputs.fetcher import Fetcher
from worker.attempt.inputs.rows import fetch_rows

ROWS = [{"prompt": f"p{i}", "chosen": "GOODWORD", "rejected": "bad"} for i in range(24)]


def upload(folder: Path) -> intake.Upload:
    path = folder / "upload.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return intake.Upload(path=path, filename="pairs.jsonl")


@pytest.fixture
def dataset_id(backend: Backend, tmp_path: Path) -> str:
    return intake.create(backend, PROJECT, upload(tmp_path)).id


@pytest.fixture
def held(backend: Backend, dataset_id: str) -> ClaimedJob:
    submit(backend, dataset_id=dataset_id)
    return claim(backend)


def change(backend: Backend, key: str) -> bytes:
    content = backend.store.get_bytes(key)
    backend.store.put_bytes(key, content.replace(b"GOODWORD", b"EVILWORD"))
    return content


def fetch(backend: Backend, held: ClaimedJob, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    fetcher = Fetcher(claim=held, work_dir=folder, check=lambda: None)
    return fetch_rows(fetcher, find_inputs(backend, held).rows, "rows.jsonl")


def test_changed_rows_are_not_trained_on(backend: Backend, held: ClaimedJob, dataset_id: str, tmp_path: Path) -> None:
    key = keys.dataset_rows(PROJECT, dataset_id)
    good = change(backend, key)
    assert fetch(backend, held, tmp_path / "work").read_bytes() == good
    assert backend.store.get_bytes(key) == good, "put back for the next one"
    kinds = [event.kind for event in events.list_events(backend, PROJECT, held.job_id, after=0, limit=100)]
    assert "rows_made_anew" in kinds


def test_rows_that_cannot_be_made_anew_end_the_job(
    backend: Backend, held: ClaimedJob, dataset_id: str, tmp_path: Path
) -> None:
    change(backend, keys.dataset_rows(PROJECT, dataset_id))
    change(backend, keys.dataset_original(PROJECT, dataset_id))
    with pytest.raises(StagingFailed, match="Upload the dataset again") as caught:
        fetch(backend, held, tmp_path / "work")
    assert caught.value.code is FailureCode.BAD_DATA


def test_missing_rows_are_made_anew(backend: Backend, held: ClaimedJob, dataset_id: str, tmp_path: Path) -> None:
    key = keys.dataset_rows(PROJECT, dataset_id)
    good = backend.store.get_bytes(key)
    backend.store.delete(key)
    assert fetch(backend, held, tmp_path / "work").read_bytes() == good


def test_rows_of_the_first_release_have_no_sum_and_are_read(
    backend: Backend, held: ClaimedJob, dataset_id: str, tmp_path: Path
) -> None:
    def forget(session: object) -> None:
        row = dataset_rows.find_dataset(session, PROJECT, dataset_id)  # type: ignore[arg-type]
        assert row is not None
        row.rows_sha256 = row.rows_bytes = row.issues_sha256 = None

    backend.database.write(forget)
    assert fetch(backend, held, tmp_path / "work").read_bytes().count(b"\n") == len(ROWS)


def test_the_sums_are_those_of_the_stored_objects(backend: Backend, dataset_id: str, tmp_path: Path) -> None:
    row = backend.database.read(lambda session: dataset_rows.find_dataset(session, PROJECT, dataset_id))
    assert row is not None
    for key, sha256 in (
        (keys.dataset_rows(PROJECT, dataset_id), row.rows_sha256),
        (keys.dataset_issues(PROJECT, dataset_id), row.issues_sha256),
    ):
        backend.store.get_file(key, tmp_path / "got")
        assert file_sha256(tmp_path / "got") == sha256
    assert row.rows_bytes == backend.store.stat(keys.dataset_rows(PROJECT, dataset_id)).num_bytes


def test_an_upload_that_the_store_did_not_keep_is_not_acknowledged(
    backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = backend.store.put_file

    def put_and_lose(key: str, path: Path, *, is_final: bool = False) -> None:
        if not key.endswith("rows.jsonl"):
            real(key, path, is_final=is_final)

    monkeypatch.setattr(backend.store, "put_file", put_and_lose)
    with pytest.raises(StoreUnavailable):
        intake.create(backend, PROJECT, upload(tmp_path), dataset_id="ds_lost")
    assert datasets.list_page(backend, PROJECT).data == []


def test_a_data_set_made_again_keeps_its_rows(backend: Backend, tmp_path: Path) -> None:
    """As a retried `Idempotency-Key` does, which keeps its id."""
    again = "ds_again"
    intake.create(backend, PROJECT, upload(tmp_path), dataset_id=again)
    datasets.delete(backend, PROJECT, again)
    intake.create(backend, PROJECT, upload(tmp_path), dataset_id=again)
    garbage_collection.collect(backend)
    assert len(datasets.list_rows(backend, PROJECT, again, RowsQuery(limit=100)).data) == len(ROWS)


def test_a_rejected_data_set_leaves_no_objects_and_a_live_one_all(backend: Backend, dataset_id: str) -> None:
    prefix = keys.dataset_prefix(PROJECT, dataset_id)
    assert not garbage_collection._is_garbage(backend, prefix)
    submit(backend, dataset_id=dataset_id)
    held = claim(backend)
    steering.cancel(backend, PROJECT, held.job_id)
    assert len(list(backend.store.list(prefix))) == 3
