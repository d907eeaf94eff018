"""A job trained by two processes under the real supervisor: one of them is killed on the way, and their agent."""

import os
import signal
from pathlib import Path

import pytest
from backends import submit
from toy_jobs import InProcessWorker, attempts_of, checkpoints_of, children_of, events, view, wait_for
from trained_jobs import FIELDS, add_rows, fetch_artifact, make_rows, run_to_end

from core.services.backend import Backend
from worker.app import TRAINER_COMMAND
from worker.processes.start import command_of

VICTIMS = ("rank 1", "agent")


@pytest.mark.slow
@pytest.mark.timeout(480)
def test_a_process_that_is_killed_costs_an_attempt_and_no_byte(backend: Backend, tmp_path: Path) -> None:
    add_rows(backend, make_rows())
    fields = FIELDS | {"dpo": FIELDS["dpo"] | {"epochs": 40}}  # long enough to be caught in the middle
    with InProcessWorker(backend, TRAINER_COMMAND, num_devices=2, group_command=command_of("device_group")):
        undisturbed = submit(backend, **fields, reuse=False).id
        assert run_to_end(backend, undisturbed).status.value == "succeeded", events(backend, undisturbed)
        disturbed = submit(backend, **fields, reuse=False).id
        for number, victim in enumerate(VICTIMS, 1):
            wait_for(lambda number=number: has_written(backend, disturbed, number), "a checkpoint of the attempt")
            group = processes()
            os.kill(group[victim], signal.SIGKILL)
            wait_for(lambda number=number: view(backend, disturbed).attempt > number, "the next attempt", 120)
            assert not any(is_running(pid) for pid in group.values())
        assert run_to_end(backend, disturbed).status.value == "succeeded", events(backend, disturbed)
    attempts = attempts_of(backend, disturbed)
    assert [attempt.outcome for attempt in attempts] == ["crashed"] * len(VICTIMS) + ["succeeded"]
    one, other = (fetch_artifact(backend, job, tmp_path / job) for job in (undisturbed, disturbed))
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


def has_written(backend: Backend, job_id: str, attempt: int) -> bool:
    return any(checkpoint.attempt == attempt for checkpoint in checkpoints_of(backend, job_id))


def processes() -> dict[str, int]:
    """Process ids of the trainer's agent and ranks."""
    (agent,) = [
        child for child in children_of(os.getpid()) if b"device_group" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]
    ranks = {f"rank {environment_of(child)['RANK']}": child for child in children_of(agent)}
    return {"agent": agent, **ranks}


def environment_of(pid: int) -> dict[str, str]:
    pairs = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def is_running(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()
