"""Events of a sweep: what happened to it, and what was decided at its rungs."""

from sqlalchemy.orm import Session

from core.database.repositories import sweeps as rows
from core.database.tables.sweeps import SweepEvent
from core.services.sweeps.sweeps import find
from core.services.transactions import reads
from core.services.views import EventView, from_row


@reads
def list_events(session: Session, project_id: str, sweep_id: str, *, after: int = 0, limit: int) -> list[EventView]:
    """Return a page of events, oldest first. Raises SweepNotFound."""
    sweep = find(session, project_id, sweep_id)
    return [_view(row) for row in rows.list_events(session, sweep.id, after=after, limit=limit)]


def _view(row: SweepEvent) -> EventView:
    return from_row(EventView, row)
