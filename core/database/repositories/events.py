"""Events of jobs: append-only, numbered under the lock on the job's row."""

from dataclasses import dataclass, field
from typing import Any, Protocol

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from core.database.columns import database_now
from core.database.tables.base import rows_of
from core.database.tables.jobs import Job
from core.database.tables.records import JobEvent
from core.domain.jobs.job_state import JobStatus

USER = "user"
SWEEPER = "sweeper"


_INSERT = insert(rows_of(JobEvent)).values(at=database_now())


class CountedJob(Protocol):
    """Fields of a job that numbering its events needs."""

    @property
    def id(self) -> str: ...
    @property
    def project_id(self) -> str: ...
    @property
    def attempt(self) -> int: ...
    @property
    def last_event_seq(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class EventDraft:
    kind: str
    message: str
    """For people: no path, no traceback."""
    level: str = "info"
    data: dict[str, Any] = field(default_factory=dict)
    actor: str = USER
    token: str | None = None
    """Where the write may be repeated after a lost answer."""


def append_event(
    session: Session,
    job: Job,
    draft: EventDraft,
    *,
    from_status: JobStatus | None = None,
    to_status: JobStatus | None = None,
) -> None:
    """Append an event; the caller's transaction holds the lock on the job's row."""
    if draft.token is not None and _is_known(session, job.id, draft.token):
        return
    job.last_event_seq += 1
    add_event(session, job, draft, from_status=from_status, to_status=to_status)


def add_event(
    session: Session,
    job: CountedJob,
    draft: EventDraft,
    *,
    from_status: JobStatus | None,
    to_status: JobStatus | None,
) -> None:
    """Append an event that the job's `last_event_seq` counts already."""
    row = {
        "job_id": job.id,
        "seq": job.last_event_seq,
        "project_id": job.project_id,
        "level": draft.level,
        "kind": draft.kind,
        "message": draft.message,
        "data": draft.data,
        "actor": draft.actor,
        "attempt": job.attempt,
        "from_status": from_status,
        "to_status": to_status,
        "token": draft.token,
    }
    session.execute(_INSERT, row)


def _is_known(session: Session, job_id: str, token: str) -> bool:
    statement = select(JobEvent.seq).where(JobEvent.job_id == job_id, JobEvent.token == token)
    return session.scalar(statement) is not None


def list_events(session: Session, job_id: str, *, after: int, limit: int) -> list[JobEvent]:
    """Return events with a number over `after`, oldest first."""
    statement = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.seq > after).order_by(JobEvent.seq)
    return list(session.scalars(statement.limit(limit)))


def list_before(session: Session, job_id: str, seq: int, *, limit: int) -> list[JobEvent]:
    """Newest first, those with a number under `seq`."""
    statement = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.seq < seq).order_by(JobEvent.seq.desc())
    return list(session.scalars(statement.limit(limit)))
