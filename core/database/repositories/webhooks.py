"""Webhook endpoints and their outbox."""

import hashlib
from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Row, and_, delete, exists, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from core.database.columns import database_after, database_now
from core.database.tables.jobs import Job
from core.database.tables.webhooks import WebhookDelivery, WebhookEndpoint


def find_endpoint(session: Session, project_id: str, endpoint_id: str) -> WebhookEndpoint | None:
    where = (WebhookEndpoint.id == endpoint_id, WebhookEndpoint.project_id == project_id)
    return session.scalar(select(WebhookEndpoint).where(*where))


def lock_endpoint(session: Session, endpoint_id: str) -> WebhookEndpoint | None:
    statement = select(WebhookEndpoint).where(WebhookEndpoint.id == endpoint_id)
    return session.scalar(statement.with_for_update().execution_options(populate_existing=True))


def list_endpoints(session: Session, project_id: str, *, before: str | None, limit: int) -> list[WebhookEndpoint]:
    """Return endpoints newest first, those older than the id `before`."""
    statement = select(WebhookEndpoint).where(WebhookEndpoint.project_id == project_id)
    if before is not None:
        statement = statement.where(WebhookEndpoint.id < before)
    return list(session.scalars(statement.order_by(WebhookEndpoint.id.desc()).limit(limit)))


def count_endpoints(session: Session, project_id: str) -> int:
    statement = select(func.count()).select_from(WebhookEndpoint).where(WebhookEndpoint.project_id == project_id)
    return session.scalar(statement) or 0


def list_listening(session: Session, project_id: str, event_type: str) -> list[str]:
    """Return the ids of the project's enabled endpoints that take this type of event."""
    where = (WebhookEndpoint.project_id == project_id, WebhookEndpoint.disabled_reason.is_(None))
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
                id=event_id(endpoint_id, job.id, job.last_event_seq),
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


def event_id(endpoint_id: str, job_id: str, job_seq: int) -> str:
    """Return the id of an event for an endpoint: the same whenever the same transition is written."""
    return "evt_" + hashlib.sha256(f"{endpoint_id} {job_id} {job_seq}".encode()).hexdigest()[:40]


def list_due(session: Session, limit: int) -> list[Row[str, str]]:
    """Return (id, endpoint id) of deliveries to be tried now, the longest due first.

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
    statement = (
        select(WebhookDelivery.id, WebhookDelivery.endpoint_id)
        .join(WebhookEndpoint, WebhookEndpoint.id == WebhookDelivery.endpoint_id)
        .where(
            WebhookDelivery.delivered_at.is_(None),
            WebhookDelivery.given_up_at.is_(None),
            WebhookDelivery.next_try_at <= database_now(),
            is_free,
            is_first,
            *is_open,
        )
        .order_by(WebhookDelivery.next_try_at)
        .limit(limit)
    )
    return list(session.execute(statement))


def lease(session: Session, ids: Collection[str], token: str, seconds: float) -> list[WebhookDelivery]:
    """Take those of these deliveries that nobody else has taken meanwhile."""
    is_free = or_(WebhookDelivery.lease_expires_at.is_(None), WebhookDelivery.lease_expires_at < database_now())
    is_pending = (WebhookDelivery.delivered_at.is_(None), WebhookDelivery.given_up_at.is_(None))
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


def is_too_old(session: Session, delivery: WebhookDelivery, seconds: float) -> bool:
    """Tell whether the delivery was written longer ago than this, by the database's clock."""
    is_old = WebhookDelivery.created_at < database_after(-seconds)
    return bool(session.scalar(select(is_old).where(WebhookDelivery.id == delivery.id)))


def is_ahead(session: Session, endpoint: WebhookEndpoint) -> bool:
    """Tell whether the secret before the newest one still signs."""
    is_valid = WebhookEndpoint.previous_until > database_now()
    return bool(session.scalar(select(is_valid).where(WebhookEndpoint.id == endpoint.id)))


def delete_old(session: Session, seconds: float) -> None:
    session.execute(delete(WebhookDelivery).where(WebhookDelivery.created_at < database_after(-seconds)))
