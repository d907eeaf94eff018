"""A job caught in the midst of DPO, however fast the machine: none ends before it is struck, or a longer one is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

LONGER = 4
MAX_TRIES = 6
"""The last is a thousand times as long as the first."""
_FINAL = ("succeeded", "failed", "cancelled")


class Jobs(Protocol):
    """What is needed of a client's jobs."""

    def get(self, job_id: str) -> dict[str, Any]: ...


class NeverCaught(Exception):
    """Raised when even the longest job ended first."""


@dataclass(frozen=True, kw_only=True)
class Caught:
    job_id: str
    epochs: int
    """Length of its DPO."""
    step: int
    """Step of DPO at which it was found once it was struck."""


@dataclass(frozen=True, kw_only=True)
class Hunt:
    jobs: Jobs
    submit: Callable[[int], str]
    """Submit a job with so many epochs of DPO; return its id."""
    strike: Callable[[], object]
    """Kill, stop or freeze what the job runs on."""
    recover: Callable[[], object]
    """Bring it up again, after a job that was over first."""
    wait_for: Callable[[Callable[[], bool], str], object]

    def catch(self, epochs: int, from_step: int) -> Caught:
        """Strike once a job has taken `from_step` steps of DPO. Raises NeverCaught."""
        for _ in range(MAX_TRIES):
            job_id = self.submit(epochs)
            self.wait_for(lambda job_id=job_id: self._step(job_id) >= from_step or self._is_over(job_id), "DPO")  # type: ignore[misc]
            self.strike()
            if not self._is_over(job_id):
                return Caught(job_id=job_id, epochs=epochs, step=self._step(job_id))
            self.recover()
            epochs *= LONGER
        raise NeverCaught(f"{MAX_TRIES} jobs ended before they were struck, the last with {epochs // LONGER} epochs")

    def _is_over(self, job_id: str) -> bool:
        return self.jobs.get(job_id)["status"] in _FINAL

    def _step(self, job_id: str) -> int:
        progress = self.jobs.get(job_id)["progress"]
        return int(progress["step"]) if progress["stage"] == "dpo" else 0
