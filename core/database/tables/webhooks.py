"""Webhook endpoints, and the outbox of events on their way to them."""

from typing import Any

from sqlalchemy import Index, text
from sqlalchemy.orm import Mapped, mapped_column

from core.database.columns import Json
from core.database.tables.base import Base, BigInt, Id, JsonObject, LongText, OfProject, ShortText, Time

_PENDING = text("delivered_at IS NULL AND given_up_at IS NULL")


class WebhookEndpoint(OfProject, Base):
    __tablename__ = "webhook_endpoints"
    __table_args__ = (Index(None, "project_id"),)

    name: Mapped[ShortText]
    url: Mapped[LongText]
    event_types: Mapped[list[Any]] = mapped_column(Json)
    generation: Mapped[int] = mapped_column(default=1)
    """Counts the secrets. They are derived from a secret of the service, and are not here."""
    oldest_generation: Mapped[int] = mapped_column(default=1)
    """First secret that may sign: those before were ended at once."""
    previous_until: Mapped[Time | None]
    """End of the time in which previous secrets sign, too."""
    disabled_reason: Mapped[LongText | None]
    """None: events go to it."""
    num_failures: Mapped[int] = mapped_column(default=0)
    """In a row."""
    last_success_at: Mapped[Time | None]
    paused_until: Mapped[Time | None]
    """After many failures in a row nothing is tried until then."""
    created_at: Mapped[Time]
    updated_at: Mapped[Time]


class WebhookDelivery(Base):
    """One event for one endpoint, written in the transaction that moved the job."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        Index(None, "endpoint_id", "created_at"),
        Index(None, "endpoint_id", "job_id", "job_seq"),
        Index("ix_webhook_deliveries_pending", "next_try_at", sqlite_where=_PENDING, postgresql_where=_PENDING),
        Index(None, "created_at"),
    )

    id: Mapped[Id] = mapped_column(primary_key=True)
    """Id of the event for this endpoint."""
    project_id: Mapped[Id]
    endpoint_id: Mapped[Id]
    job_id: Mapped[Id]
    job_seq: Mapped[BigInt]
    """Number of the job's event that it tells of: deliveries of one job keep this order."""
    type: Mapped[ShortText]
    body: Mapped[JsonObject]
    created_at: Mapped[Time]
    num_tries: Mapped[int] = mapped_column(default=0)
    next_try_at: Mapped[Time]
    lease_token: Mapped[Id | None]
    lease_expires_at: Mapped[Time | None]
    delivered_at: Mapped[Time | None]
    given_up_at: Mapped[Time | None]
    last_status: Mapped[int | None]
    """HTTP status of the last try; None where none came."""
    last_error: Mapped[LongText | None]
