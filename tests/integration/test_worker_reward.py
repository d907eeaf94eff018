"""A reward model by the real trainer: in plain transformers, its scores and judgements, its card; from a policy too."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from backends import PROJECT, submit
from scored_jobs import ask, check_judgement, light_lane
from toy_jobs import InProcessWorker, events, points
from trained_jobs import FIELDS, add_rows, fetch_artifact, make_rows, run_to_end
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from core.domain.errors import InvalidRequest
from core.services.backend import Backend
from core.services.base_models import starting_points
from core.services.jobs import checkpoint_policies
from core.services.requests import exports, scores
from worker.app import TRAINER_COMMAND

SETTINGS = {name: value for name, value in FIELDS.items() if name not in ("sft", "dpo", "sample_prompts")} | {
    "method": "reward",
    "reward": {"epochs": 3, "batch_size": 4, "learning_rate": 2e-3, "center_rewards_coefficient": 0.01},
}


def test_a_reward_model_and_its_scores(backend: Backend, tmp_path: Path) -> None:
    rows = make_rows()
    add_rows(backend, rows)
    with InProcessWorker(backend, TRAINER_COMMAND):
        job_id = submit(backend, **SETTINGS, lora={"rank": 4}).id
        job = run_to_end(backend, job_id)
    assert job.status.value == "succeeded", (job.error, [event.message for event in events(backend, job_id)])
    folder = fetch_artifact(backend, job_id, tmp_path / "model")
    check_records(backend, job, folder)
    check_scores(backend, job_id, folder, rows)
    check_judgement(backend, job_id)
    check_refusals(backend, job_id)


def check_records(backend: Backend, job: Any, folder: Path) -> None:
    assert [stage.name.value for stage in job.stages] == ["staging", "reward", "evaluation", "publishing"]
    assert {stage.status for stage in job.stages} == {"finished"}
    assert {(point.stage.value, point.split) for point in points(backend, job.id)} == {
        ("reward", "train"),
        ("reward", "validation"),
    }
    held_out = job.results["held_out"]
    assert 0 <= held_out["calibration"]["error"] <= 1
    assert sum(part["num_pairs"] for part in held_out["calibration"]["bins"]) == held_out["num_rows"]
    assert (folder / "pairs.jsonl").exists()
    assert not (folder / "generation_config.json").exists()
    card = (folder / "README.md").read_text()
    assert "A reward model, trained on preference pairs" in card
    assert "AutoModelForSequenceClassification" in card
    assert "AutoPeftModelForSequenceClassification" in card
    assert "calibration error" in card
    assert "text-classification" in card
    assert not any(word in card for word in ("DPO", "beta", "variant", "AutoModelForCausalLM"))
    assert "calibration error" in (folder / "curves.svg").read_text()
    spec = json.loads((folder / "job.json").read_text())["spec"]
    assert spec["reward"]["center_rewards_coefficient"] == 0.01
    assert not {"sft", "dpo", "variant", "beta"} & spec.keys()
    best = [item for item in checkpoint_policies.list_checkpoints(backend, PROJECT, job.id) if item.is_best]
    assert [item.stage.value for item in best] == ["reward"]


def check_scores(backend: Backend, job_id: str, folder: Path, rows: list[dict[str, Any]]) -> None:
    """The same numbers as the card's own code gives for the downloaded folder, padded batches included."""
    with light_lane(backend):
        pairs = ask(
            backend, job_id, pairs=[{key: row[key] for key in ("prompt", "chosen", "rejected")} for row in rows]
        )
        items = ask(backend, job_id, items=[{"prompt": row["prompt"], "response": row["chosen"]} for row in rows])
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    expected = {}
    for side in ("chosen", "rejected"):
        texts = [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row[side]}],
                tokenize=False,
            )
            for row in rows
        ]
        batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.no_grad():
            expected[side] = model(**batch).logits[:, 0].numpy()
    np.testing.assert_allclose([pair["chosen_reward"] for pair in pairs], expected["chosen"], atol=1e-5)
    np.testing.assert_allclose([pair["rejected_reward"] for pair in pairs], expected["rejected"], atol=1e-5)
    np.testing.assert_allclose([item["reward"] for item in items], expected["chosen"], atol=1e-5)
    assert {(item["policy_logp"], item["reference_logp"]) for item in items} == {(None, None)}
    margins = expected["chosen"] - expected["rejected"]
    assert [pair["preference_probability"] for pair in pairs] == pytest.approx(1 / (1 + np.exp(-margins)), abs=1e-5)
    assert margins.mean() > 0.05, "it has learnt the pairs"


def check_refusals(backend: Backend, job_id: str) -> None:
    """It is no policy: nothing is trained from it, nothing exported, no token of it has a ratio."""
    with pytest.raises(
        InvalidRequest, match=r"/base_model: job_.* is a job of the method reward.*Name what it started"
    ):
        submit(backend, base_model=job_id, **FIELDS)
    with pytest.raises(exports.ExportNotSupported, match="reward model"):
        exports.create(backend, PROJECT, job_id, exports.ExportFormat.GGUF_F16)
    with pytest.raises(InvalidRequest, match="tokens has no meaning with a reward model"):
        scores.create(backend, PROJECT, job_id, {"items": [{"prompt": "a", "response": "b"}], "tokens": True})
    listed = starting_points.list_models(backend, PROJECT, limit=100).data
    assert job_id not in [model.name for model in listed]


def test_a_policy_is_a_start_for_a_reward_model(backend: Backend, tmp_path: Path) -> None:
    add_rows(backend, make_rows(8))
    short = {"epochs": 1, "batch_size": 4, "learning_rate": 1e-3}
    with InProcessWorker(backend, TRAINER_COMMAND):
        first = submit(backend, **FIELDS | {"method": "supervised", "sft": short, "dpo": None, "sample_prompts": []}).id
        assert run_to_end(backend, first).status.value == "succeeded"
        second = submit(backend, base_model=first, **SETTINGS | {"reward": short}).id
        job = run_to_end(backend, second)
    assert job.status.value == "succeeded", job.error
    folder = fetch_artifact(backend, second, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["LlamaForSequenceClassification"]
