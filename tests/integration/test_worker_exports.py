"""An export from the light lane, by the real programs: converted, read back by llama.cpp, stored, listed."""

import dataclasses
from pathlib import Path

from backends import PROJECT, add_dataset, claim, submit
from toy_jobs import await_end

from core.domain.exports import ExportFormat
from core.domain.jobs.stored_files import StoredFile, StoredTree
from core.services.attempts import lifecycle
from core.services.attempts.lifecycle import Publication
from core.services.backend import Backend
from core.services.jobs import artifacts
from core.services.requests import exports
from core.storage import keys
from core.storage.trees import upload_tree
from worker.drain import Drain
from worker.light.exports import EXPORTS
from worker.light.lane import LightLane
from worker.processes.gguf_check import TEXT, LlamaCpp
from worker.scratch import WorkerScratch

SECONDS = 120


def publish(backend: Backend, folder: Path) -> str:
    """A job whose policy is that folder."""
    add_dataset(backend)
    job_id = submit(backend, sft="skip").id
    held = claim(backend)
    tree = upload_tree(backend.store, keys.artifact_prefix(PROJECT, job_id, held.attempt_name), folder)
    files = [
        StoredFile(path=file.path, key=tree.prefix + file.path, num_bytes=file.num_bytes, sha256=file.sha256)
        for file in tree.files
    ]
    stored = StoredTree(prefix=tree.prefix, manifest_sha256=tree.manifest_sha256)
    lifecycle.finish_succeeded(held, Publication(tree=stored, files=files))
    return job_id


def run_lane(backend: Backend, job_id: str) -> exports.ExportView:
    asked = exports.create(backend, PROJECT, job_id, ExportFormat.GGUF_Q8_0)
    drain, scratch = Drain(5), WorkerScratch(backend.settings.scratch_dir)
    lane = LightLane(backend, drain, scratch, 1, [EXPORTS])
    lane.start()
    try:
        return await_end(lambda: exports.get(backend, PROJECT, job_id, asked.id), SECONDS)
    finally:
        drain.begin()
        lane.join()
        scratch.close()


def test_a_policy_becomes_a_file_that_llama_cpp_reads(backend: Backend, tiny_model: Path, tmp_path: Path) -> None:
    job_id = publish(backend, tiny_model)
    done = run_lane(backend, job_id)
    assert done.status == "succeeded", done.error
    assert done.verification is not None
    assert 0 < done.verification["mean_difference"] < 0.01
    assert done.verification["num_tokens"] > 40
    (file,) = (file for file in artifacts.get(backend, PROJECT, job_id).files if file.path == done.path)
    backend.store.get_file(file.key, tmp_path / "policy.gguf")
    assert (tmp_path / "policy.gguf").stat().st_size == file.num_bytes
    assert len(LlamaCpp(tmp_path / "policy.gguf", 1).tokenize(TEXT)) > 40


def test_without_a_converter_or_with_a_damaged_policy_it_fails_and_says_so(
    backend: Backend, tiny_model: Path, tmp_path: Path
) -> None:
    job_id = publish(backend, tiny_model)
    lost = backend.settings.model_copy(update={"gguf_converter_dir": tmp_path})
    failed = run_lane(dataclasses.replace(backend, settings=lost), job_id)
    assert failed.error is not None
    assert "no GGUF converter" in failed.error
    weights = next(file for file in artifacts.get(backend, PROJECT, job_id).files if file.path == "model.safetensors")
    backend.store.put_bytes(weights.key, b"other bytes")
    failed = run_lane(backend, job_id)
    assert failed.error is not None
    assert "model.safetensors has" in failed.error
