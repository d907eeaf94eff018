"""Webhook endpoints and their outbox."""

import secrets
from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Row, and_, delete, exists, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from core.database.columns import database_after, database_now
from core.database.tables.jobs import Job
from core.database.tables.webhooks import WebhookDelivery, WebhookEndpoint
from core.domain.webhook_events import DISABLED_BY_USER


def count_endpoints(session: Session, project_id: str) -> int:
    statement = select(func.count()).select_from(WebhookEndpoint).where(WebhookEndpoint.project_id == project_id)
    return session.scalar(statement) or 0


def list_listening(session: Session, project_id: str, event_type: str) -> list[str]:
    """Return the ids of the project's endpoints that take this type of event.

    One that the service has disabled is among them: its events wait for it to be enabled again.
    """
    is_wanted = or_(WebhookEndpoint.disabled_reason.is_(None), WebhookEndpoint.disabled_reason != DISABLED_BY_USER)
    where = (WebhookEndpoint.project_id == project_id, is_wanted)
    rows = session.execute(select(WebhookEndpoint.id, WebhookEndpoint.event_types).where(*where))
    return [endpoint_id for endpoint_id, types in rows if event_type in types]


def delete_endpoint(session: Session, endpoint_id: str) -> None:
    session.execute(delete(WebhookDelivery).where(WebhookDelivery.endpoint_id == endpoint_id))
    session.execute(delete(WebhookEndpoint).where(WebhookEndpoint.id == endpoint_id))


def list_deliveries(
    session: Session, endpoint_id: str, *, before: tuple[datetime, str] | None, limit: int
) -> list[WebhookDelivery]:
    """Return deliveries newest first, those older than a time and id."""
    statement = select(WebhookDelivery).where(WebhookDelivery.endpoint_id == endpoint_id)
    if before is not None:
        at, delivery_id = before
        is_same = and_(WebhookDelivery.created_at == at, WebhookDelivery.id < delivery_id)
        statement = statement.where(or_(WebhookDelivery.created_at < at, is_same))
    order = (WebhookDelivery.created_at.desc(), WebhookDelivery.id.desc())
    return list(session.scalars(statement.order_by(*order).limit(limit)))


def enqueue(session: Session, job: Job, event_type: str) -> None:
    """Write an event of the job's newest number for each endpoint that takes its type; in the caller's transaction."""
    for endpoint_id in list_listening(session, job.project_id, event_type):
        session.add(
            WebhookDelivery(
                id=f"evt_{secrets.token_hex(16)}",
                project_id=job.project_id,
                endpoint_id=endpoint_id,
                job_id=job.id,
                job_seq=job.last_event_seq,
                type=event_type,
                body={"data": {"id": job.id}},
                created_at=database_now(),
                next_try_at=database_now(),
            )
        )


def list_due(session: Session, limit: int, limit_of_endpoint: int) -> list[Row[str, str]]:
    """Return (id, endpoint id) of deliveries to be tried now, the longest due first, at most so many an endpoint.

    Of each job the earliest event of an endpoint goes first; nothing that another process holds is among them.
    """
    earlier = aliased(WebhookDelivery)
    is_first = ~exists().where(
        earlier.endpoint_id == WebhookDelivery.endpoint_id,
        earlier.job_id == WebhookDelivery.job_id,
        earlier.job_seq < WebhookDelivery.job_seq,
        earlier.delivered_at.is_(None),
        earlier.given_up_at.is_(None),
    )
    is_free = or_(WebhookDelivery.lease_expires_at.is_(None), WebhookDelivery.lease_expires_at < database_now())
    is_open = (
        WebhookEndpoint.disabled_reason.is_(None),
        or_(WebhookEndpoint.paused_until.is_(None), WebhookEndpoint.paused_until <= database_now()),
    )
    place = func.row_number().over(partition_by=WebhookDelivery.endpoint_id, order_by=WebhookDelivery.next_try_at)
    due = (
        select(WebhookDelivery.id, WebhookDelivery.endpoint_id, WebhookDelivery.next_try_at, place.label("place"))
        .join(WebhookEndpoint, WebhookEndpoint.id == WebhookDelivery.endpoint_id)
        .where(
            WebhookDelivery.delivered_at.is_(None),
            WebhookDelivery.given_up_at.is_(None),
            WebhookDelivery.next_try_at <= database_now(),
            is_free,
            is_first,
            *is_open,
        )
        .subquery()
    )
    statement = select(due.c.id, due.c.endpoint_id).where(due.c.place <= limit_of_endpoint)
    return list(session.execute(statement.order_by(due.c.next_try_at).limit(limit)))


def lease(session: Session, ids: Collection[str], token: str, seconds: float) -> list[WebhookDelivery]:
    """Take those of these deliveries that nobody else has taken meanwhile."""
    is_free = or_(WebhookDelivery.lease_expires_at.is_(None), WebhookDelivery.lease_expires_at < database_now())
    is_pending = (
        WebhookDelivery.delivered_at.is_(None),
        WebhookDelivery.given_up_at.is_(None),
        WebhookDelivery.next_try_at <= database_now(),
    )
    session.execute(
        update(WebhookDelivery)
        .where(WebhookDelivery.id.in_(ids), is_free, *is_pending)
        .values(lease_token=token, lease_expires_at=database_after(seconds))
        .execution_options(synchronize_session=False)
    )
    taken = select(WebhookDelivery).where(WebhookDelivery.id.in_(ids), WebhookDelivery.lease_token == token)
    return list(session.scalars(taken.order_by(WebhookDelivery.id).execution_options(populate_existing=True)))


def lock_leased(session: Session, delivery_id: str, token: str) -> WebhookDelivery | None:
    where = (WebhookDelivery.id == delivery_id, WebhookDelivery.lease_token == token)
    return session.scalar(
        select(WebhookDelivery).where(*where).with_for_update().execution_options(populate_existing=True)
    )


def is_too_old(session: Session, endpoint: WebhookEndpoint, delivery: WebhookDelivery, seconds: float) -> bool:
    """Tell whether delivery and endpoint have stood as they are for longer than this, by the database's clock."""
    then = database_after(-seconds)
    is_old = and_(WebhookDelivery.created_at < then, WebhookEndpoint.updated_at < then)
    both = select(is_old).join_from(WebhookEndpoint, WebhookDelivery, WebhookDelivery.endpoint_id == endpoint.id)
    return bool(session.scalar(both.where(WebhookEndpoint.id == endpoint.id, WebhookDelivery.id == delivery.id)))


def has_taken_since(session: Session, endpoint: WebhookEndpoint, delivery: WebhookDelivery) -> bool:
    """Tell whether the endpoint has taken an event since this one was written."""
    has_taken = WebhookEndpoint.last_success_at > WebhookDelivery.created_at
    both = select(has_taken).join_from(WebhookEndpoint, WebhookDelivery, WebhookDelivery.endpoint_id == endpoint.id)
    statement = both.where(WebhookEndpoint.id == endpoint.id, WebhookDelivery.id == delivery.id)
    return bool(session.scalar(statement))


def is_ahead(session: Session, endpoint: WebhookEndpoint) -> bool:
    """Tell whether the secret before the newest one still signs."""
    is_valid = WebhookEndpoint.previous_until > database_now()
    return bool(session.scalar(select(is_valid).where(WebhookEndpoint.id == endpoint.id)))


def delete_old(session: Session, seconds: float) -> None:
    session.execute(delete(WebhookDelivery).where(WebhookDelivery.created_at < database_after(-seconds)))
