"""Scores from the light lane, by the real engine: equal to training's, and not behind it."""

import json
from typing import Any

import pytest
from backends import submit
from scored_jobs import ask, check_judgement, light_lane
from toy_jobs import InProcessWorker, submit_toy, view, wait_for_status
from toy_trainer import Script
from trained_jobs import FIELDS, add_rows, fetch_artifact, make_rows, run_to_end

from core.services.backend import Backend
from worker.app import TRAINER_COMMAND


def train(backend: Backend, rows: list[dict[str, Any]], **changes: Any) -> str:
    add_rows(backend, rows)
    with InProcessWorker(backend, TRAINER_COMMAND):
        job_id = submit(backend, **FIELDS | {"sample_prompts": []} | changes).id
        job = run_to_end(backend, job_id)
    assert job.status.value == "succeeded", job.error
    return job_id


def test_scores_are_the_rewards_that_training_logged_last(backend: Backend, tmp_path: Any) -> None:
    """Of an adapter, measured against the adapter before DPO; whole policies: tests/numerics/test_scores.py."""
    rows = make_rows(12)
    job_id = train(backend, rows, lora={"rank": 4}, variant="ld_dpo", variant_options={"alpha": 0.5})
    logged = [
        json.loads(line) for line in (fetch_artifact(backend, job_id, tmp_path / "policy") / "pairs.jsonl").open()
    ]
    by_line = {row["line"]: {name: row[name] for name in ("prompt", "chosen", "rejected")} for row in rows}
    too_long = {"prompt": "long " * 100, "chosen": "a", "rejected": "b"}
    with light_lane(backend), InProcessWorker(backend):
        # Scores do not wait behind the job that holds the worker's only slot.
        busy = submit_toy(backend, Script(steps=100_000, step_seconds=0.05), "ds_toy")
        wait_for_status(backend, busy, "running")
        found = ask(backend, job_id, pairs=[*(by_line[pair["line"]] for pair in logged), too_long])
        assert view(backend, busy).status.value == "running"
    assert "max_length" in found.pop()["error"]
    for pair, result in zip(logged, found, strict=True):
        assert result["chosen_reward"] == pytest.approx(pair["chosen_reward"], abs=1e-4)
        assert result["rejected_reward"] == pytest.approx(pair["rejected_reward"], abs=1e-4)
        assert result["margin"] == pytest.approx(pair["margin_last"], abs=1e-4)
    assert {pair["split"] for pair in logged} == {"train", "validation"}
    assert any(abs(pair["margin_last"]) > 0.01 for pair in logged)
    check_judgement(backend, job_id)
