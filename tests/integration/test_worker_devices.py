"""A job trained by two processes under the real supervisor, one of which is killed on the way."""

import os
import signal
from pathlib import Path

import pytest
from backends import submit
from toy_jobs import InProcessWorker, attempts_of, children_of, events, view, wait_for, wait_for_step
from trained_jobs import FIELDS, add_rows, fetch_artifact, make_rows, run_to_end

from core.services.backend import Backend
from worker.app import TRAINER_COMMAND


@pytest.mark.slow
@pytest.mark.timeout(480)
def test_a_rank_that_is_killed_costs_an_attempt_and_no_byte(backend: Backend, tmp_path: Path) -> None:
    add_rows(backend, make_rows())
    fields = FIELDS | {"dpo": FIELDS["dpo"] | {"epochs": 40}}  # long enough to be caught in the middle
    with InProcessWorker(backend, TRAINER_COMMAND, num_devices=2):
        undisturbed = submit(backend, **fields, reuse=False).id
        assert run_to_end(backend, undisturbed).status.value == "succeeded", events(backend, undisturbed)
        disturbed = submit(backend, **fields, reuse=False).id
        wait_for_step(backend, disturbed, "dpo", 6)  # a checkpoint has been written
        (rank,) = [rank for trainer in children_of(os.getpid()) for rank in children_of(trainer) if is_follower(rank)]
        os.kill(rank, signal.SIGKILL)
        wait_for(lambda: view(backend, disturbed).attempt > 1, "the next attempt", 120)
        assert run_to_end(backend, disturbed).status.value == "succeeded", events(backend, disturbed)
    assert [attempt.outcome for attempt in attempts_of(backend, disturbed)] == ["crashed", "succeeded"]
    one, other = (fetch_artifact(backend, job, tmp_path / job) for job in (undisturbed, disturbed))
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


def is_follower(pid: int) -> bool:
    return b"core.training.follower" in Path(f"/proc/{pid}/cmdline").read_bytes()
