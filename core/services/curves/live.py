"""Changes of a job since a reader's last look: points, events and state, as of one moment."""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from core.services.curves import pages
from core.services.curves.pages import MetricsQuery
from core.services.jobs import events, jobs
from core.services.jobs.view import view_job
from core.services.transactions import reads
from core.services.views import EventView, JobView, MetricPointView

MAX_POINTS = 1000
MAX_EVENTS = 100


@dataclass(frozen=True, kw_only=True)
class LiveCursor:
    """Position of a reader; 0 at the start."""

    metric_seq: int = 0
    event_seq: int = 0


@dataclass(frozen=True, kw_only=True)
class LiveChanges:
    job: JobView
    points: list[MetricPointView]
    events: list[EventView]
    cursor: LiveCursor
    """Behind these changes."""
    has_more: bool
    reset: bool
    """Points were taken back: the reader forgets all it holds; `points` start at the first one."""


@reads
def read_changes(session: Session, project_id: str, job_id: str, after: LiveCursor) -> LiveChanges:
    """Return one page of changes after the cursor. Raises JobNotFound."""
    job = jobs.find(session, project_id, job_id)
    page = pages.page_of(session, job, MetricsQuery(after=after.metric_seq, limit=MAX_POINTS))
    found = events.events_of(session, job, after=after.event_seq, limit=MAX_EVENTS + 1)
    shown = found[:MAX_EVENTS]
    return LiveChanges(
        job=view_job(session, job),
        points=page.points,
        events=shown,
        cursor=LiveCursor(metric_seq=page.last_seq, event_seq=shown[-1].seq if shown else after.event_seq),
        has_more=page.has_more or len(found) > MAX_EVENTS,
        reset=page.reset,
    )
