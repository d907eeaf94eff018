"""Rows of the audit trail and of ended sessions."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from core.database.columns import database_after, database_now
from core.database.tables.audit import AuditEvent, EndedSession


@dataclass(frozen=True, kw_only=True)
class AuditFilter:
    """Conditions on audit events; None is any."""

    project_id: str | None = None
    key_id: str | None = None
    actor: str | None = None
    action: str | None = None
    object_id: str | None = None
    outcome: str | None = None
    since: datetime | None = None
    until: datetime | None = None


def add_event(session: Session, event: AuditEvent) -> None:
    """Insert the event; one of a commit whose answer was lost is there already."""
    if session.get(AuditEvent, event.id) is None:
        session.add(event)


def list_events(session: Session, where: AuditFilter, *, before: str | None, limit: int) -> list[AuditEvent]:
    """Return events older than the id `before`, newest first."""
    statement = select(AuditEvent)
    for name in ("project_id", "key_id", "actor", "action", "object_id", "outcome"):
        value = getattr(where, name)
        if value is not None:
            statement = statement.where(getattr(AuditEvent, name) == value)
    if where.since is not None:
        statement = statement.where(AuditEvent.at >= where.since)
    if where.until is not None:
        statement = statement.where(AuditEvent.at < where.until)
    if before is not None:
        statement = statement.where(AuditEvent.id < before)
    return list(session.scalars(statement.order_by(AuditEvent.id.desc()).limit(limit)))


def delete_old_events(session: Session, age_seconds: float, limit: int) -> int:
    """Delete the oldest events beyond the age; returns how many."""
    old = select(AuditEvent.id).where(AuditEvent.at < database_after(-age_seconds)).order_by(AuditEvent.at).limit(limit)
    gone = session.scalars(delete(AuditEvent).where(AuditEvent.id.in_(old)).returning(AuditEvent.id))
    return len(list(gone))


def end_session(session: Session, session_id: str, seconds: float) -> bool:
    """Note the end of a session; False when it was noted before. Raises IntegrityError if another does so meanwhile."""
    if session.get(EndedSession, session_id) is not None:
        return False
    session.add(EndedSession(id=session_id, expires_at=database_after(seconds)))
    session.flush()
    return True


def is_session_ended(session: Session, session_id: str) -> bool:
    return session.scalar(select(EndedSession.id).where(EndedSession.id == session_id)) is not None


def delete_expired_sessions(session: Session) -> None:
    session.execute(delete(EndedSession).where(EndedSession.expires_at < database_now()))
