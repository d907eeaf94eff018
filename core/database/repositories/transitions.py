"""The one place that changes a job's status: compare-and-set and its event, in the caller's transaction."""

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import CursorResult, update
from sqlalchemy.orm import Session

from core.database.columns import database_now, seconds_since
from core.database.repositories.events import EventDraft, append_event
from core.database.tables.jobs import Attempt, Job
from core.domain.errors import Conflict
from core.domain.job_state import ALLOWED_TRANSITIONS, FINAL_STATUSES, AttemptOutcome, Desired, JobStatus

_WISH_OF: dict[JobStatus, Desired] = {
    JobStatus.QUEUED: Desired.RUN,
    JobStatus.PAUSED: Desired.PAUSE,
    JobStatus.CANCELLED: Desired.CANCEL,
}


class IllegalMove(Conflict):
    code = "illegal-move"
    title = "The job cannot make this move"


@dataclass(frozen=True, kw_only=True)
class Move:
    to: JobStatus
    event: EventDraft
    outcome: AttemptOutcome | None = None
    """Of the attempt that ends; given exactly when the job stops running."""
    values: dict[str, Any] = field(default_factory=dict)
    """Further columns of the job."""


def move(session: Session, job: Job, what: Move) -> None:
    """Make the move, or raise IllegalMove. `job` is as read in this transaction and shows the new state afterwards."""
    source = job.status
    if what.to not in ALLOWED_TRANSITIONS[source]:
        raise IllegalMove(f"A job that is {source.value} cannot become {what.to.value}.")
    assert (source is JobStatus.RUNNING) == (what.outcome is not None)
    values: dict[str, Any] = {"status": what.to}
    if what.to in _WISH_OF:
        values["desired"] = _WISH_OF[what.to]
    if what.to in FINAL_STATUSES:
        values["finished_at"] = database_now()
    if what.outcome is not None:
        values |= {"lease_owner": None, "lease_expires_at": None, "claim_token": None}
        values["runtime_seconds"] = Job.runtime_seconds + seconds_since(Job.attempt_started_at)
        _end_attempt(session, job, what.outcome)
    statement = (
        update(Job)
        .where(Job.id == job.id, Job.status == source, Job.attempt == job.attempt)
        .values(values | what.values)
        .execution_options(synchronize_session=False)
    )
    result = session.execute(statement)
    assert isinstance(result, CursorResult)
    if result.rowcount != 1:
        raise IllegalMove("The job has changed meanwhile; look at it again.")
    session.refresh(job)
    append_event(session, job, what.event, from_status=source, to_status=what.to)


def _end_attempt(session: Session, job: Job, outcome: AttemptOutcome) -> None:
    session.execute(
        update(Attempt)
        .where(Attempt.job_id == job.id, Attempt.attempt == job.attempt)
        .values(ended_at=database_now(), outcome=outcome)
        .execution_options(synchronize_session=False)
    )
