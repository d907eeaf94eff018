"""Policies that 7b06ab9 published with a merge in bf16: flagged, and published again as they were trained."""

import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
from api_server import serve
from backends import BASE_MODEL, PROJECT, add_dataset, claim, submit
from safetensors.torch import load_file
from toy_jobs import await_end, events
from trained_jobs import add_rows, fetch_artifact, make_rows
from transformers import AutoModelForCausalLM

from core.database.repositories.garbage import list_garbage
from core.domain.jobs.stored_files import StoredFile, StoredTree
from core.domain.request_status import RequestStatus
from core.services.attempts import lifecycle
from core.services.attempts.lifecycle import Publication
from core.services.backend import Backend
from core.services.jobs import artifacts, jobs
from core.services.jobs.weights import read_types
from core.services.requests import republications
from core.services.requests.republications import NothingToRepublish, RepublicationView
from core.storage import keys
from core.storage.trees import upload_tree
from worker.drain import Drain
from worker.light.lane import LightLane
from worker.light.republishing import REPUBLICATIONS
from worker.scratch import WorkerScratch

ROOT = Path(__file__).resolve().parents[2]
FIRST_RELEASE = "7b06ab9"
SECONDS = 120
LORA: dict[str, Any] = {
    "sft": "skip",
    "lora": {"rank": 4, "alpha": 8},
    "precision": "bf16",
    "max_length": 64,
    "sample_prompts": ["What is a preference?"],
}
OLD_CODE = """
import sys, torch
from pathlib import Path
from core.training.policies import PolicySource, load_policy, save_artifact
from core.training.plan import DpoPlan, LoraPlan, TrainingPlan
from core.training import lora
base, target = sys.argv[1:]
plan = TrainingPlan(base_model_dir=base, train_data="", sft=None, work_dir="", precision="bf16",
    dpo=DpoPlan(epochs=1, learning_rate=1e-4, batch_size=1), lora=LoraPlan(rank=4, alpha=8.0))
model = load_policy(plan, PolicySource())
generator = torch.Generator().manual_seed(5)
for name, tensor in lora.adapter_state(model).items():
    if "lora_B" in name:
        tensor.data.copy_(torch.randn(tensor.shape, generator=generator) * 3e-4)
save_artifact(model, plan, Path(target))
"""


@pytest.fixture(scope="module")
def old_folder(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact's weights and adapter, saved by the code of the first release."""
    folder = Path(tmp_path_factory.mktemp("first-release"))
    archive = folder / "code.tar"
    made = subprocess.run(["git", "archive", "-o", str(archive), FIRST_RELEASE], cwd=ROOT, capture_output=True)
    if made.returncode:
        pytest.skip(f"this checkout has no history back to {FIRST_RELEASE}")
    with tarfile.open(archive) as code:
        code.extractall(folder / "code", filter="data")
    target = folder / "artifact"
    command = [sys.executable, "-c", OLD_CODE, str(tiny_model), str(target)]
    subprocess.run(command, cwd=folder / "code", env={"PYTHONPATH": str(folder / "code")}, check=True)
    for path in tiny_model.glob("*token*"):
        shutil.copyfile(path, target / path.name)
    (target / "metrics.jsonl").write_text("")
    (target / "curves.svg").write_text("<svg/>")
    (target / "evaluation.json").write_text(json.dumps({"sft_digest": None, "drift": None}))
    return target


def publish(backend: Backend, folder: Path, **fields: Any) -> str:
    """A job of the first release whose artifact is that folder."""
    job_id = submit(backend, **(LORA | fields)).id
    held = claim(backend)
    lifecycle.record_resolved_spec(held, held.spec | {"precision": "bf16"})
    record = {
        "job_id": job_id,
        "spec": held.spec,
        "summary": {},
        "evaluation": {},
        "versions": {"preftune": "0.1.0"},
        "device": "cpu",
        "base_model": {"name": BASE_MODEL, "source": None},
        "requested": {},
        "dataset_sha256": {},
        "samples": [],
    }
    (folder / "job.json").write_text(json.dumps(record))
    tree = upload_tree(backend.store, keys.artifact_prefix(PROJECT, job_id, held.attempt_name), folder)
    files = [
        StoredFile(path=file.path, key=tree.prefix + file.path, num_bytes=file.num_bytes, sha256=file.sha256)
        for file in tree.files
    ]
    stored = StoredTree(prefix=tree.prefix, manifest_sha256=tree.manifest_sha256)
    lifecycle.finish_succeeded(held, Publication(tree=stored, files=files))
    return job_id


def republish(backend: Backend, job_id: str) -> RepublicationView:
    asked = republications.create(backend, PROJECT, job_id)
    drain, scratch = Drain(5), WorkerScratch(backend.settings.scratch_dir)
    lane = LightLane(backend, drain, scratch, 1, [REPUBLICATIONS])
    lane.start()
    try:
        return await_end(lambda: republications.get(backend, PROJECT, job_id, asked.id), SECONDS)
    finally:
        drain.begin()
        lane.join()
        scratch.close()


def test_a_policy_merged_in_bf16_is_flagged_and_published_again(
    backend: Backend, old_folder: Path, tiny_model: Path, tmp_path: Path
) -> None:
    add_rows(backend, make_rows())
    job_id = publish(backend, old_folder)
    old = artifacts.get(backend, PROJECT, job_id)
    assert read_types(backend) == 1
    summary = jobs.get(backend, PROJECT, job_id).artifact
    assert summary is not None
    assert (summary.weights_dtype, summary.merged_in_bf16) == ("bfloat16", True)
    (flag,) = (event for event in events(backend, job_id) if event.kind == "merged_in_bf16")
    assert f"preftune jobs republish {job_id}" in flag.message

    done = republish(backend, job_id)
    assert done.status is RequestStatus.SUCCEEDED, done.error
    new = artifacts.get(backend, PROJECT, job_id)
    assert done.outcome is not None
    assert done.outcome["manifest_sha256_before"] == old.manifest_sha256
    assert done.outcome["manifest_sha256"] == new.manifest_sha256 != old.manifest_sha256
    (event,) = (event for event in events(backend, job_id) if event.kind == "republished")
    assert event.data["manifest_sha256"] == new.manifest_sha256
    summary = jobs.get(backend, PROJECT, job_id).artifact
    assert summary is not None
    assert (summary.weights_dtype, summary.merged_in_bf16) == ("float32", False)
    assert old.prefix in backend.database.read(lambda session: list_garbage(session, limit=10))

    folder = fetch_artifact(backend, job_id, tmp_path / "new")
    assert {file.path for file in new.files} >= {file.path for file in old.files}
    verification = json.loads((folder / "job.json").read_text())["summary"]["verification"]
    assert verification["num_weights_equal"] > 10
    assert "Each of" in (folder / "README.md").read_text()
    check_exact(folder, tiny_model)
    with pytest.raises(NothingToRepublish):
        republications.create(backend, PROJECT, job_id)


def check_exact(folder: Path, base: Path) -> None:
    """Each published weight is the base's, as bf16 rounds it, and the adapter's update added in float32."""
    start = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).state_dict()
    adapter = load_file(folder / "adapter" / "adapter_model.safetensors")
    published = load_file(folder / "model.safetensors")
    num_moved = 0
    for name, weight in published.items():
        expected = start[name].float()
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{stem}.lora_A.weight" in adapter:
            expected = expected + 2.0 * (adapter[f"{stem}.lora_B.weight"] @ adapter[f"{stem}.lora_A.weight"])
            num_moved += int(((weight != start[name].float()) & (weight.bfloat16() == start[name])).sum())
        assert weight.dtype == torch.float32
        torch.testing.assert_close(weight, expected, rtol=0, atol=1e-8)
    assert num_moved > 1000, "weights whose update a merge in bf16 rounds to nothing"


def test_another_base_model_of_the_name_is_refused_and_the_old_artifact_stays(
    backend: Backend, old_folder: Path
) -> None:
    add_dataset(backend)  # whose rows are gone: verified on a stand-in
    job_id = publish(backend, old_folder)
    read_types(backend)
    path = backend.settings.models_dir / BASE_MODEL / "model.safetensors"
    model = AutoModelForCausalLM.from_pretrained(path.parent)
    with torch.no_grad():
        model.model.norm.weight += 0.5
    model.save_pretrained(path.parent)
    failed = republish(backend, job_id)
    assert failed.error is not None
    assert "not the sum of this base model and the adapter" in failed.error
    assert artifacts.get(backend, PROJECT, job_id).prefix.endswith("/artifact/")


@pytest.mark.parametrize("fields", [{"artifact_dtype": "bfloat16"}, {"lora": None}])
def test_what_was_asked_for_or_has_no_adapter_is_not_flagged(
    backend: Backend, old_folder: Path, fields: dict[str, Any]
) -> None:
    add_rows(backend, make_rows())
    job_id = publish(backend, old_folder, **fields)
    read_types(backend)
    summary = jobs.get(backend, PROJECT, job_id).artifact
    assert summary is not None
    assert (summary.weights_dtype, summary.merged_in_bf16) == ("bfloat16", False)
    assert not [event for event in events(backend, job_id) if event.kind == "merged_in_bf16"]
    with pytest.raises(NothingToRepublish):
        republications.create(backend, PROJECT, job_id)


def test_over_http(tmp_path: Path) -> None:
    with serve(tmp_path) as api:
        job_id = api.finish_job()["job_id"]
        refused = api.http.post(f"/jobs/{job_id}/republish")
        unknown = api.http.get(f"/jobs/{job_id}/republish/republish_x")
        shown = api.http.get(f"/jobs/{job_id}").json()["artifact"]
    assert (refused.status_code, refused.json()["code"]) == (409, "nothing-to-republish")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "republication-not-found")
    assert shown["merged_in_bf16"] is False
