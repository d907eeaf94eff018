"""Changes of a job's status, made here only: compare-and-set and its event in the caller's transaction."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Double, FromClause, bindparam, delete, func, insert, literal, select, update
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import ReturningUpdate

from core.database.columns import database_after, database_now, seconds_since
from core.database.repositories import webhooks
from core.database.repositories.events import EventDraft, add_event
from core.database.tables.base import rows_of
from core.database.tables.gangs import GangMember
from core.database.tables.jobs import Attempt, Job
from core.domain.errors import Conflict
from core.domain.jobs.gangs import Seat
from core.domain.jobs.job_state import ALLOWED_TRANSITIONS, FINAL_STATUSES, AttemptOutcome, Desired, JobStatus
from core.domain.webhook_events import EVENT_TYPES

_INSERT_ATTEMPT = insert(rows_of(Attempt)).values(started_at=database_now())
_WISH_OF: dict[JobStatus, Desired] = {
    JobStatus.QUEUED: Desired.RUN,
    JobStatus.PAUSED: Desired.PAUSE,
    JobStatus.CANCELLED: Desired.CANCEL,
}


class IllegalTransition(Conflict):
    code = "illegal-move"
    title = "The job cannot make this move"


@dataclass(frozen=True, kw_only=True)
class Transition:
    to: JobStatus
    event: EventDraft
    outcome: AttemptOutcome | None = None
    """Outcome of the attempt that ends; given exactly when the job stops running."""
    values: dict[str, Any] = field(default_factory=dict)
    """Further columns of the job."""


@dataclass(frozen=True, kw_only=True)
class Claimant:
    """Identity of who claims a job. `token` is new for each claim, so that a repeated one finds what it took."""

    worker: str
    host: str
    device: str
    token: str
    lease_seconds: float
    seat: Seat | None = None
    """None: it takes jobs on one node only."""


class StartedJob(NamedTuple):
    """Fields of a taken job that a worker needs."""

    id: str
    project_id: str
    attempt: int
    last_event_seq: int
    spec: dict[str, Any]
    pause_at_share: float | None
    nodes: int


STARTED = tuple(rows_of(Job).c[name] for name in StartedJob._fields)
"""The columns of StartedJob."""


def is_queued(jobs: FromClause) -> ColumnElement[bool]:
    # Spelled out: SQLite does not use an index of queued jobs for a status that it is told only later.
    return jobs.c.status == literal(JobStatus.QUEUED, literal_execute=True)


def is_due(jobs: FromClause) -> ColumnElement[bool]:
    return is_queued(jobs) & (jobs.c.next_run_at <= database_now())


def start(
    session: Session, job_id: str, claimant: Claimant, places: Sequence[tuple[str, str]] = ()
) -> StartedJob | None:
    """Begin an attempt at the job; None if it does not wait any more, or for other nodes, or another has it locked.

    Args:
        places: host and device of each of its nodes, where it has several.
    """
    values = {
        "job_id": job_id,
        "num_nodes": len(places) or 1,
        "worker": claimant.worker,
        "token": claimant.token,
        "lease_seconds": claimant.lease_seconds,
    }
    row = session.execute(_start(), values).one_or_none()
    if row is None:
        return None
    job = StartedJob(*row)
    attempt = {"job_id": job.id, "attempt": job.attempt, "project_id": job.project_id}
    place = {"host": claimant.host, "device": claimant.device}
    session.execute(_INSERT_ATTEMPT, attempt | place | {"worker": claimant.worker, "claim_token": claimant.token})
    where = f"on {claimant.host} ({claimant.device})"
    data: dict[str, Any] = {**place}
    if len(places) > 1:
        where = f"on {len(places)} nodes: {', '.join(f'{host} ({device})' for host, device in places)}"
        data["nodes"] = [{"host": host, "device": device} for host, device in places]
    message = f"Attempt {job.attempt} started {where}."
    event = EventDraft(kind="started", message=message, data=data, actor=claimant.worker)
    add_event(session, job, event, from_status=JobStatus.QUEUED, to_status=JobStatus.RUNNING)
    return job


@cache
def _start() -> ReturningUpdate[Any]:
    """Return the statement, built once: SQLAlchemy takes longer over that than a database over running it."""
    jobs, waiting = rows_of(Job), rows_of(Job).alias()
    is_for_them = waiting.c.nodes == bindparam("num_nodes")
    wanted = select(waiting.c.id).where(waiting.c.id == bindparam("job_id"), is_for_them, is_due(waiting))
    values = {
        "status": JobStatus.RUNNING,
        "attempt": jobs.c.attempt + 1,
        "attempt_started_at": database_now(),
        "started_at": func.coalesce(jobs.c.started_at, database_now()),
        "lease_owner": bindparam("worker"),
        "lease_expires_at": database_after(bindparam("lease_seconds", type_=Double())),
        "claim_token": bindparam("token"),
        "num_unfilled": 0,
        "heartbeat_seq": jobs.c.heartbeat_seq + 1,
        "last_event_seq": jobs.c.last_event_seq + 1,
    }
    locked = wanted.with_for_update(skip_locked=True).scalar_subquery()
    return update(jobs).where(jobs.c.id == locked).values(values).returning(*STARTED)


def move(session: Session, job: Job, what: Transition) -> None:
    """Make the transition, or raise IllegalTransition. `job` is as read in this transaction and shows the new state."""
    source = job.status
    if what.to not in ALLOWED_TRANSITIONS[source]:
        raise IllegalTransition(f"A job that is {source.value} cannot become {what.to.value}.")
    assert (source is JobStatus.RUNNING) == (what.outcome is not None)
    values: dict[str, Any] = {"status": what.to, "last_event_seq": Job.last_event_seq + 1}
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
        .returning(Job)
        .execution_options(synchronize_session=False, populate_existing=True)
    )
    if session.scalar(statement) is None:
        raise IllegalTransition("The job has changed meanwhile; look at it again.")
    add_event(session, job, what.event, from_status=source, to_status=what.to)
    if what.to in EVENT_TYPES:
        webhooks.enqueue(session, job, EVENT_TYPES[what.to])


def _end_attempt(session: Session, job: Job, outcome: AttemptOutcome) -> None:
    if job.nodes > 1:
        session.execute(delete(rows_of(GangMember)).where(rows_of(GangMember).c.job_id == job.id))
    session.execute(
        update(Attempt)
        .where(Attempt.job_id == job.id, Attempt.attempt == job.attempt)
        .values(ended_at=database_now(), outcome=outcome)
        .execution_options(synchronize_session=False)
    )
