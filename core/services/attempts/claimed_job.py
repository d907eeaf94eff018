"""A job in the hands of one attempt: the value that goes from the queue to whatever the worker does with the job."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy.orm import Session

from core.database.repositories import jobs as job_rows
from core.database.tables.jobs import Job
from core.domain.errors import Fenced
from core.services.backend import Backend

TOKEN_CHARS = 10
"""Fifty random bits: the other characters of a token are the time."""

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class LastWrite:
    """The number of the newest write of an attempt that is known to be committed; threads share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._number = 0

    @property
    def number(self) -> int:
        return self._number

    def has_committed(self, number: int) -> None:
        with self._lock:
            self._number = max(self._number, number)


@dataclass(frozen=True, kw_only=True)
class NodePlace:
    """The worker's place among those that train a job together."""

    node: int = 0
    """Node 0 leads: it alone records, commits checkpoints, publishes, and ends the attempt."""
    num_nodes: int = 1
    member: str = ""
    """Random, of the worker's process."""

    @property
    def has_others(self) -> bool:
        return self.num_nodes > 1


@dataclass(frozen=True, kw_only=True)
class ClaimedJob:
    """A job that this worker holds, until another attempt takes it."""

    backend: Backend = field(compare=False, repr=False)
    job_id: str
    project_id: str
    attempt: int
    token: str
    """Random: no other claim has it, whatever becomes of the database."""
    spec: dict[str, Any]
    worker: str
    host: str
    device: str
    place: NodePlace = NodePlace()
    pause_at_share: float | None = None
    """Share of the last stage's steps at whose next evaluation it is to pause (`core.services.sweeps`)."""
    last_write: LastWrite = field(default_factory=LastWrite, compare=False, repr=False)

    @property
    def attempt_name(self) -> str:
        """Name of the attempt in object keys: its number and enough of its token to be unique."""
        return f"{self.attempt}-{self.token[-TOKEN_CHARS:]}"


def fenced(
    work: Callable[Concatenate[Session, Job, ClaimedJob, Arguments], Result],
) -> Callable[Concatenate[ClaimedJob, Arguments], Result]:
    """Run each call as one write of the attempt, with the lock on the job's row. Raises Fenced, Unavailable.

    Each write raises the row's number. One that is not above what this attempt has committed before belongs to a
    database that went back in time: points and checkpoints that the worker takes for recorded are gone, so the attempt
    ends, and the next one computes them again. A unit may run more than once: see `core.database.session`.
    """

    @wraps(work)
    def call(claim: ClaimedJob, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        lease_seconds = claim.backend.settings.lease_seconds
        known = claim.last_write.number

        def numbered(session: Session) -> tuple[Result, int]:
            job = job_rows.fence(session, claim.job_id, claim.attempt, claim.token, lease_seconds)
            number = job.heartbeat_seq
            if number <= known:
                raise Fenced(f"The database went back to an earlier state than attempt {claim.attempt} has written.")
            return work(session, job, claim, *args, **kwargs), number

        result, number = claim.backend.database.write(numbered)
        claim.last_write.has_committed(number)
        return result

    return call
