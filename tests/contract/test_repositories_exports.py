"""Requests for exports: what is made once, listed, refused and let go of, on both databases."""

import pytest
from backends import PROJECT, add_dataset, claim, publication, set_architecture, submit
from sqlalchemy import text

from core.domain.exports import ExportFormat
from core.domain.jobs.stored_files import StoredFile
from core.services.attempts import lifecycle
from core.services.backend import Backend
from core.services.jobs import artifacts, events, jobs, steering
from core.services.operations import garbage_collection
from core.services.requests import exports, requests
from core.storage import keys

Q8_0 = ExportFormat.GGUF_Q8_0


def published(backend: Backend, architecture: str = "LlamaForCausalLM") -> str:
    set_architecture(backend.settings, architecture)
    job_id = submit(backend, sft="skip").id
    held = claim(backend)
    lifecycle.finish_succeeded(held, publication(backend, held))
    return job_id


@pytest.fixture
def job_id(backend: Backend) -> str:
    add_dataset(backend)
    return published(backend)


def make(backend: Backend) -> exports.ExportClaim:
    """As a lane does."""
    held = exports.claim(backend, 60)
    assert held is not None
    key = held.prefix + "file.gguf"
    backend.store.put_bytes(key, b"GGUF")
    exports.finish(backend, held, StoredFile(path=held.path, key=key, num_bytes=4, sha256="5" * 64), {"num_tokens": 9})
    return held


def test_what_was_made_is_a_file_of_the_artifact_and_made_once(backend: Backend, job_id: str) -> None:
    asked = exports.create(backend, PROJECT, job_id, Q8_0)
    assert (asked.status, asked.path, asked.verification) == ("queued", None, None)
    assert exports.create(backend, PROJECT, job_id, Q8_0).id == asked.id
    held = make(backend)
    assert held.prefix == keys.export_prefix(PROJECT, job_id, 1, asked.id)
    done = exports.get(backend, PROJECT, job_id, asked.id)
    assert (done.status, done.path, done.verification) == (
        "succeeded",
        f"exports/{job_id}.q8_0.gguf",
        {"num_tokens": 9},
    )
    assert exports.create(backend, PROJECT, job_id, Q8_0).id == asked.id
    assert exports.claim(backend, 60) is None
    artifact = artifacts.get(backend, PROJECT, job_id)
    assert [file.path for file in artifact.files] == [done.path, "model.safetensors"]
    assert [file.path for file in artifact.published] == ["model.safetensors"]
    summary = jobs.get(backend, PROJECT, job_id).artifact
    assert summary is not None
    assert (summary.num_files, summary.num_bytes) == (2, 11)
    assert events.list_events(backend, PROJECT, job_id)[-1].kind == "exported"


def test_one_that_failed_is_tried_anew_and_a_lost_lease_publishes_nothing(backend: Backend, job_id: str) -> None:
    first = exports.create(backend, PROJECT, job_id, Q8_0)
    held = exports.claim(backend, 60)
    assert held is not None
    backend.database.write(
        lambda session: session.execute(text("UPDATE export_requests SET lease_expires_at = created_at"))
    )
    again = exports.claim(backend, 60)
    assert again is not None
    file = StoredFile(path=held.path, key="x", num_bytes=1, sha256="5" * 64)
    exports.finish(backend, held, file, {})
    assert len(artifacts.get(backend, PROJECT, job_id).files) == 1
    requests.fail(backend, again.lease, "No.")
    second = exports.create(backend, PROJECT, job_id, Q8_0)
    assert second.id != first.id
    assert [view.status for view in exports.list_exports(backend, PROJECT, job_id)] == ["queued", "failed"]


def test_exported_files_stay_as_long_as_their_job(backend: Backend, job_id: str) -> None:
    exports.create(backend, PROJECT, job_id, Q8_0)
    held = make(backend)
    assert keys.owning_prefix(held.prefix + "file.gguf") == held.prefix
    assert not garbage_collection.is_orphan(backend, held.prefix)
    jobs.delete(backend, PROJECT, job_id)
    assert garbage_collection.is_orphan(backend, held.prefix)
    while garbage_collection.collect(backend):
        pass
    assert list(backend.store.list(held.prefix)) == []


def test_refusals_and_limits(backend: Backend, job_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(exports.ExportNotFound):
        exports.get(backend, PROJECT, job_id, "export_none")
    unfinished = submit(backend).id
    with pytest.raises(exports.NothingToExport):
        exports.create(backend, PROJECT, unfinished, Q8_0)
    steering.cancel(backend, PROJECT, unfinished)
    other = published(backend, "OddForCausalLM")
    with pytest.raises(exports.ExportNotSupported, match="OddForCausalLM"):
        exports.create(backend, PROJECT, other, Q8_0)
    monkeypatch.setattr(exports, "MAX_WAITING", 1)
    exports.create(backend, PROJECT, job_id, Q8_0)
    with pytest.raises(exports.TooManyExports):
        exports.create(backend, PROJECT, job_id, ExportFormat.GGUF_F16)
