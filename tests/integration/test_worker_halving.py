"""Successive halving with a real worker: members pause at their rung, and those that go on end as if they had not."""

import hashlib
import json

from backends import BASE_MODEL, PROJECT, add_dataset
from toy_jobs import ROWS, TOY_COMMAND, InProcessWorker, attempts_of, wait_for
from toy_trainer import Script, expected_weights

from core.domain.sweeps import SweepRequest, SweepStatus
from core.services.backend import Backend
from core.services.jobs import artifacts
from core.services.sweeps import progress, sweeps
from core.storage import keys

BETAS = [0.05, 0.1, 0.3, 0.4]


def test_members_pause_at_their_rung_and_the_best_end_as_if_they_had_not(backend: Backend) -> None:
    add_dataset(backend, num_rows=len(ROWS.splitlines()))
    backend.store.put_bytes(keys.dataset_rows(PROJECT, "ds_1"), ROWS)
    script = Script(steps=8)
    job = {"base_model": BASE_MODEL, "dataset_id": "ds_1", "metadata": {"toy": json.dumps({"steps": script.steps})}}
    values = {"job": job, "grid": {"beta": BETAS}, "strategy": "successive_halving", "halving": {"eta": 2}}
    sweep_id = sweeps.create(backend, PROJECT, SweepRequest.model_validate(values)).id

    def is_over() -> bool:
        progress.step(backend)
        return sweeps.get(backend, PROJECT, sweep_id).finished_at is not None

    with InProcessWorker(backend, TOY_COMMAND), InProcessWorker(backend, TOY_COMMAND):
        wait_for(is_over, "the sweep")
    ended = sweeps.get(backend, PROJECT, sweep_id)
    assert (ended.status, ended.counts) == (SweepStatus.FINISHED, {"succeeded": 1, "cancelled": 3})
    assert [[rung.step for rung in member.rungs] for member in ended.members] == [[2], [2], [2, 4], [2, 4]]
    (winner,) = [member.job_id for member in ended.members if not member.is_dropped]
    weights = next(file for file in artifacts.get(backend, PROJECT, winner).files if file.path == "model.safetensors")
    assert weights.sha256 == hashlib.sha256(expected_weights(ROWS, script)).hexdigest()
    assert [attempt.outcome for attempt in attempts_of(backend, winner)] == ["paused", "paused", "succeeded"]
