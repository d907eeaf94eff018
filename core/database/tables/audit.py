"""Audit events and ended sessions."""

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from core.database.tables.base import Base, Id, JsonObject, ShortText, Time


class AuditEvent(Base):
    """One act of somebody. Triggers refuse every update, and every deletion before a day is over."""

    __tablename__ = "audit_events"
    __table_args__ = (Index(None, "project_id", "id"), Index(None, "at"))

    id: Mapped[Id] = mapped_column(primary_key=True)
    at: Mapped[Time]
    project_id: Mapped[Id | None]
    """Whose thing it was; null: the deployment's."""
    actor: Mapped[ShortText]
    """Who: a key's id, the name that a proxy vouched for, or the operator's user on the service's machine."""
    key_id: Mapped[Id | None]
    address: Mapped[Id | None]
    request_id: Mapped[Id | None]
    action: Mapped[Id]
    object_id: Mapped[ShortText | None]
    outcome: Mapped[Id]
    detail: Mapped[JsonObject]


class EndedSession(Base):
    """A session of the dashboard that was signed out before its time."""

    __tablename__ = "ended_sessions"

    id: Mapped[Id] = mapped_column(primary_key=True)
    expires_at: Mapped[Time]
    """After it the session would have ended anyhow."""
