"""Two rounds of the real engine on a tiny model, with a rule as judge, by a worker of its own."""

import signal
from pathlib import Path

import pytest
from backends import PROJECT
from played_rounds import add_file, child_of, file_of, get, result_of
from tiny_models import make_tiny_model
from toy_jobs import ServiceProcess, wait_for

from core.domain.judging.rounds import RoundsRequest
from core.services.backend import Backend
from core.services.jobs import artifacts, jobs
from core.services.rounds import rounds

SECONDS = 900
"""Answers are generated with low priority: on a busy machine a minute each time, on a quiet one some seconds."""
REQUEST = {
    "job": {
        "base_model": "tiny",
        "dataset_id": "ds_1",
        "dpo": {"epochs": 2, "batch_size": 4, "learning_rate": 1e-3},
        "max_length": 128,
        "precision": "fp32",
        "validation_fraction": 0,
        "score_training_pairs": False,
    },
    "judge": {"kind": "length"},
    "num_rounds": 2,
    "generation": {"num_prompts": 12, "num_samples": 2, "sampling": {"max_tokens": 12}},
    "evaluation": {"held_out_fraction": 0.3},
    "stop_early": False,
}


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_two_rounds_of_the_real_engine(backend: Backend, tmp_path: Path) -> None:
    make_tiny_model(backend.settings.models_dir / "tiny")
    add_file(backend)
    rounds_id = rounds.create(backend, PROJECT, RoundsRequest.model_validate(REQUEST)).id
    with ServiceProcess("tiny_worker.py", backend, tmp_path / "worker.log", lease_seconds=20.0) as worker:
        wait_for(lambda: get(backend, rounds_id).finished_at is not None, "the rounds", SECONDS)
        worker.send(signal.SIGTERM)
        worker.wait()
    ended = get(backend, rounds_id)
    assert (ended.status, ended.stop_reason) == ("finished", "all_rounds"), ended.error
    first, second = ended.rounds
    assert (first.start_policy, second.start_policy) == ("tiny", first.policy)
    for one in ended.rounds:
        rows = file_of(backend, result_of(ended, one.number, "pair")["dataset_id"])
        assert one.num_pairs == len(rows) > 0
        assert all(len(row["chosen"]) < len(row["rejected"]) for row in rows)
        assert one.win_rate is not None
        assert one.drift is not None
        assert one.drift["kl"] is not None
        results = jobs.get(backend, PROJECT, child_of(ended, one.number, "train"))
        assert results.status == "succeeded"
    weights = {
        next(
            file.sha256
            for file in artifacts.get(backend, PROJECT, str(one.policy)).files
            if file.path == "model.safetensors"
        )
        for one in ended.rounds
    }
    assert len(weights) == 2
    assert {row["model"] for row in file_of(backend, result_of(ended, 2, "gather")["dataset_id"])} == {
        "tiny",
        first.policy,
        second.policy,
    }
