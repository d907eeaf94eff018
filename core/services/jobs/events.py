"""Events of a job, and its samples."""

from sqlalchemy.orm import Session

from core.database.repositories import events as event_rows
from core.database.repositories import samples as sample_rows
from core.database.tables.jobs import Job
from core.database.tables.records import JobEvent
from core.services.jobs import jobs
from core.services.transactions import reads
from core.services.views import EventView, SampleView, from_row

MAX_PAGE_EVENTS = 500


@reads
def list_events(
    session: Session, project_id: str, job_id: str, *, after: int = 0, limit: int = MAX_PAGE_EVENTS
) -> list[EventView]:
    """Return a page of events, oldest first."""
    return events_of(session, jobs.find(session, project_id, job_id), after=after, limit=limit)


def events_of(session: Session, job: Job, *, after: int, limit: int) -> list[EventView]:
    """Return `list_events` inside the caller's transaction."""
    return [view_event(row) for row in event_rows.list_events(session, job.id, after=after, limit=limit)]


def view_event(row: JobEvent) -> EventView:
    return from_row(EventView, row)


@reads
def list_samples(session: Session, project_id: str, job_id: str) -> list[SampleView]:
    jobs.find(session, project_id, job_id)
    return [from_row(SampleView, row) for row in sample_rows.list_samples(session, job_id)]
