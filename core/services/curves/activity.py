"""Events and metric points of a job as one list, the newest first."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from core.database.repositories import events as event_rows
from core.database.repositories import metrics as metric_rows
from core.services.curves.pages import view_point
from core.services.jobs import jobs
from core.services.jobs.events import view_event
from core.services.jobs.view import view_job
from core.services.transactions import reads
from core.services.views import EventView, JobView, MetricPointView


@dataclass(frozen=True)
class Bounds:
    """What lies behind a place in the list: events and points whose numbers are under these."""

    event_seq: int
    metric_seq: int


@dataclass(frozen=True, kw_only=True)
class Activity:
    """One event or one metric point."""

    what: EventView | MetricPointView
    rest: Bounds
    """All that is older. It names the entry, too: no two have the same."""

    @property
    def at(self) -> datetime:
        return self.what.at


@dataclass(frozen=True, kw_only=True)
class ActivityPage:
    job: JobView
    entries: list[Activity]
    has_more: bool


@reads
def list_newest(
    session: Session, project_id: str, job_id: str, *, before: Bounds | None = None, limit: int = 20
) -> ActivityPage:
    """Return at most `limit` entries older than `before`. Raises JobNotFound."""
    row = jobs.find(session, project_id, job_id)
    bounds = before or Bounds(row.last_event_seq + 1, row.last_metric_seq + 1)
    events = event_rows.list_before(session, job_id, bounds.event_seq, limit=limit + 1)
    points = metric_rows.list_before(session, job_id, bounds.metric_seq, limit=limit + 1)
    merged = _merge([view_event(event) for event in events], [view_point(point) for point in points], bounds)
    return ActivityPage(job=view_job(session, row), entries=merged[:limit], has_more=len(events) + len(points) > limit)


def _merge(events: list[EventView], points: list[MetricPointView], bounds: Bounds) -> list[Activity]:
    """Both lists, the newest first, by time; an event goes before a point of the same time."""
    merged: list[Activity] = []
    while events or points:
        if not points or (events and events[0].at >= points[0].at):
            event, *events = events
            bounds = Bounds(event.seq, bounds.metric_seq)
            merged.append(Activity(what=event, rest=bounds))
        else:
            point, *points = points
            bounds = Bounds(bounds.event_seq, point.seq)
            merged.append(Activity(what=point, rest=bounds))
    return merged
