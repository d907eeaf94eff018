"""A supervised job of the real trainer: curves, report and card; and DPO on its policy."""

import json
from pathlib import Path
from typing import Any

import pytest
from backends import submit
from safetensors.torch import load_file
from toy_jobs import InProcessWorker, events, points
from trained_jobs import FIELDS, add_rows, fetch_artifact, make_rows, run_to_end

from core.domain.dataset_rows import DatasetKind
from core.services.backend import Backend
from core.services.jobs import checkpoint_policies
from worker.app import TRAINER_COMMAND

SUPERVISED = {name: value for name, value in FIELDS.items() if name != "dpo"} | {
    "method": "supervised",
    "sft": {"epochs": 2, "batch_size": 4, "learning_rate": 1e-3},
}


def demonstrations() -> list[dict[str, Any]]:
    return [{"line": row["line"], "prompt": row["prompt"], "response": row["chosen"]} for row in make_rows()]


def test_a_supervised_job_and_dpo_on_its_policy(backend: Backend, tmp_path: Path) -> None:
    """The second job begins at ln 2, with the first one's policy as its reference."""
    add_rows(backend, demonstrations(), "ds_sft", kind=DatasetKind.DEMONSTRATION)
    add_rows(backend, make_rows())
    with InProcessWorker(backend, TRAINER_COMMAND):
        first = submit(backend, dataset_id="ds_sft", **SUPERVISED).id
        supervised = run_to_end(backend, first)
        assert supervised.status.value == "succeeded", (supervised.error, [e.message for e in events(backend, first)])
        second = submit(backend, base_model=first, **FIELDS | {"sft": "skip"}).id
        job = run_to_end(backend, second)
    assert job.status.value == "succeeded", job.error
    policy = fetch_artifact(backend, first, tmp_path / "first")
    check_records(backend, supervised, policy)
    start = next(point for point in points(backend, second) if point.split == "train")
    assert start.values["loss"] == pytest.approx(0.6931472)
    assert start.values["rewards/margins"] == 0.0
    before = load_file(policy / "model.safetensors")
    after = load_file(fetch_artifact(backend, second, tmp_path / "second") / "model.safetensors")
    largest = max(float((after[name] - before[name]).abs().max()) for name in before)
    assert 0 < largest < 0.05, "it went on from there"


def check_records(backend: Backend, job: Any, folder: Path) -> None:
    assert [stage.name.value for stage in job.stages] == ["staging", "sft", "evaluation", "publishing"]
    assert {stage.status for stage in job.stages} == {"finished"}
    splits = {(point.stage.value, point.split) for point in points(backend, job.id)}
    assert splits == {("sft", "train"), ("sft", "validation")}
    results = job.results
    assert results["base_model"]["perplexity"]["value"] > results["held_out"]["perplexity"]["value"]
    assert results["better_than_base_model"]["loss"]["low"] > 0
    assert not any("reward" in name for name in json.loads((folder / "evaluation.json").read_text())["results"])
    assert not (folder / "pairs.jsonl").exists()
    card = (folder / "README.md").read_text()
    assert "A policy fine-tuned on demonstrations" in card
    assert "the base model's perplexity on them" in card
    assert "KL(policy || base model)" in card
    assert not any(word in card for word in ("DPO", "beta", "variant", "pairs"))
    assert "beta" not in (folder / "report.html").read_text()
    spec = json.loads((folder / "job.json").read_text())["spec"]
    assert spec["method"] == "supervised"
    best = [item for item in checkpoint_policies.list_checkpoints(backend, "default", job.id) if item.is_best]
    assert [item.stage.value for item in best] == ["sft"]
