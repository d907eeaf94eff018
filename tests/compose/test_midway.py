"""The hunt for a job under way ends in one, on machines of any speed; the rest of this folder needs a Docker engine."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from compose.midway import LONGER, MAX_TRIES, Hunt, NeverCaught

STEPS_OF_EPOCH = 50


@dataclass
class Machine:
    """A service whose jobs take a step with each look at them, and many while a strike is on its way."""

    steps_during_strike: int
    is_up: bool = True
    jobs: list[dict[str, Any]] = field(default_factory=list)

    def submit(self, epochs: int) -> str:
        assert self.is_up
        self.jobs.append({"status": "running", "progress": {"stage": "sft", "step": 0}, "epochs": epochs})
        return str(len(self.jobs) - 1)

    def get(self, job_id: str) -> dict[str, Any]:
        if self.is_up:
            self._run(20)
        return self.jobs[int(job_id)]

    def strike(self) -> None:
        self._run(self.steps_during_strike)
        self.is_up = False

    def recover(self) -> None:
        self.is_up = True

    def _run(self, steps: int) -> None:
        job = self.jobs[-1]
        step = min(job["progress"]["step"] + steps, job["epochs"] * STEPS_OF_EPOCH)
        job["progress"] = {"stage": "dpo", "step": step}
        if step == job["epochs"] * STEPS_OF_EPOCH:
            job["status"] = "succeeded"

    def hunt(self) -> Hunt:
        return Hunt(jobs=self, submit=self.submit, strike=self.strike, recover=self.recover, wait_for=wait_for)


def wait_for(condition: Callable[[], bool], what: str) -> None:
    assert any(condition() for _ in range(1000)), what


@pytest.mark.parametrize(("steps", "tries"), [(0, 1), (250, 2), (1000, 2), (4000, 3), (60_000, 5)])
def test_a_job_is_caught_in_the_midst_on_any_machine(steps: int, tries: int) -> None:
    machine = Machine(steps)
    caught = machine.hunt().catch(6, 40)
    assert (len(machine.jobs), caught.epochs) == (tries, 6 * LONGER ** (tries - 1))
    assert 40 <= caught.step < caught.epochs * STEPS_OF_EPOCH
    assert machine.jobs[int(caught.job_id)]["status"] == "running"


def test_the_hunt_ends() -> None:
    machine = Machine(10**9)
    with pytest.raises(NeverCaught, match="6 jobs ended"):
        machine.hunt().catch(6, 40)
    assert len(machine.jobs) == MAX_TRIES
