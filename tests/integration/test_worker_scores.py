"""Scores from the light lane, by the real engine: equal to training's, and not behind it."""

import json
from typing import Any

import pytest
from backends import PROJECT, submit
from toy_jobs import InProcessWorker, submit_toy, view, wait_for_status
from toy_trainer import Script
from trained_jobs import FIELDS, add_rows, fetch_artifact, make_rows, run_to_end

from core.services import scores
from core.services.backend import Backend
from worker.app import TRAINER_COMMAND
from worker.drain import Drain
from worker.score_lane import ScoreLane
from worker.scratch import WorkerScratch

pytestmark = pytest.mark.slow  # not yet timed on a quiet machine

SECONDS = 200


def ask(backend: Backend, job_id: str, **request: Any) -> list[dict[str, Any]]:
    asked = scores.create(backend, PROJECT, job_id, request)
    answer = scores.get(backend, PROJECT, job_id, asked.id, wait_seconds=SECONDS)
    assert answer.status == "succeeded", answer
    assert answer.results is not None
    return answer.results


@pytest.mark.parametrize("changes", [{}, {"lora": {"rank": 4}, "variant": "ld_dpo", "variant_options": {"alpha": 0.5}}])
def test_scores_are_the_rewards_that_training_logged_last(
    backend: Backend, tmp_path: Any, changes: dict[str, Any]
) -> None:
    rows = make_rows()
    add_rows(backend, rows)
    with InProcessWorker(backend, TRAINER_COMMAND):
        job_id = submit(backend, **FIELDS | changes).id
        job = run_to_end(backend, job_id)
    assert job.status.value == "succeeded", job.error
    logged = [
        json.loads(line) for line in (fetch_artifact(backend, job_id, tmp_path / "policy") / "pairs.jsonl").open()
    ]
    lane_drain, scratch = Drain(5), WorkerScratch(backend.settings.scratch_dir)
    lane = ScoreLane(backend, lane_drain, scratch, num_threads=1)
    lane.start()
    try:
        by_line = {row["line"]: {name: row[name] for name in ("prompt", "chosen", "rejected")} for row in rows}
        too_long = {"prompt": "long " * 100, "chosen": "a", "rejected": "b"}
        found = ask(backend, job_id, pairs=[*(by_line[pair["line"]] for pair in logged), too_long])
        assert "max_length" in found.pop()["error"]
        for pair, result in zip(logged, found, strict=True):
            assert result["chosen_reward"] == pytest.approx(pair["chosen_reward"], abs=1e-4)
            assert result["rejected_reward"] == pytest.approx(pair["rejected_reward"], abs=1e-4)
            assert result["margin"] == pytest.approx(pair["margin_last"], abs=1e-4)
        assert {pair["split"] for pair in logged} == {"train", "validation"}
        assert any(abs(pair["margin_last"]) > 0.01 for pair in logged)
        if not changes:
            first = by_line[logged[0]["line"]]
            (item,) = ask(backend, job_id, items=[{"prompt": first["prompt"], "response": first["chosen"]}])
            assert item["reward"] == pytest.approx(found[0]["chosen_reward"], abs=1e-4)
            assert item["reward"] == pytest.approx(0.1 * (item["policy_logp"] - item["reference_logp"]), abs=1e-4)
            assert item["num_tokens"] > 1
            # While a job holds the worker's only slot.
            with InProcessWorker(backend):
                busy = submit_toy(backend, Script(steps=100_000, step_seconds=0.05), "ds_toy")
                wait_for_status(backend, busy, "running")
                ask(backend, job_id, items=[{"prompt": "p", "response": "r"}])
                assert view(backend, busy).status.value == "running"
    finally:
        lane_drain.begin()
        lane.join()
        scratch.close()
