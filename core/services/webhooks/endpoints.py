"""Webhook endpoints of a project, and the log of what went to them."""

import base64
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy.orm import Session

from core.database.columns import database_after, database_now
from core.database.repositories import owned
from core.database.repositories import webhooks as webhook_rows
from core.database.tables.webhooks import WebhookDelivery, WebhookEndpoint
from core.domain.errors import Conflict, FieldError, InvalidRequest, NotFound, present
from core.domain.webhook_events import DISABLED_BY_USER, EVENT_TYPES, SECRET_PREFIX
from core.services.access import audit
from core.services.access.secret_files import session_secret
from core.services.backend import Backend
from core.services.cursors import decode_cursor, encode_cursor
from core.services.ids import new_id
from core.services.pages import page_of, read_cursor
from core.services.transactions import reads, writes
from core.services.views import Page, from_row
from core.services.webhooks import addresses
from core.services.webhooks.addresses import AllowedHosts
from core.settings import Settings

MAX_ENDPOINTS = 20
"""Limit of one project."""
GRACE_SECONDS = 24 * 3600.0
"""A secret that was rotated with grace signs for so long beside the new one."""
NUM_KEPT = 2
"""Secrets before the newest one that sign while it is new."""
TYPES = tuple(EVENT_TYPES.values())


class WebhookNotFound(NotFound):
    code = "webhook-not-found"
    title = "There is no such webhook"


class TooManyWebhooks(Conflict):
    code = "too-many-webhooks"
    title = "The project has as many webhooks as it may"


@dataclass(frozen=True, kw_only=True)
class EndpointView:
    id: str
    name: str
    url: str
    event_types: list[str]
    is_enabled: bool
    disabled_reason: str | None
    secret_hint: str
    """The end of the secret."""
    num_failures: int
    """In a row."""
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, kw_only=True)
class NewSecret:
    endpoint: EndpointView
    secret: str
    """Shown once."""


@dataclass(frozen=True, kw_only=True)
class DeliveryView:
    id: str
    type: str
    job_id: str
    status: str
    """`pending`, `delivered` or `given_up`"""
    num_tries: int
    last_status: int | None
    last_error: str | None
    created_at: datetime
    next_try_at: datetime | None
    delivered_at: datetime | None


def create(
    backend: Backend,
    project_id: str,
    *,
    url: str,
    event_types: Sequence[str],
    name: str | None = None,
    endpoint_id: str | None = None,
) -> NewSecret:
    """Add an endpoint. Raises InvalidRequest, AddressRefused, TooManyWebhooks.

    With an `endpoint_id` chosen before (see `idempotency`), a repeated call answers what is there.
    """
    chosen = endpoint_id or new_id("wh")
    check_types(event_types)
    _check_url(backend.settings, url)

    def work(session: Session) -> NewSecret:
        row = owned.find(session, WebhookEndpoint, project_id, chosen)
        if row is None:
            if webhook_rows.count_endpoints(session, project_id) >= MAX_ENDPOINTS:
                raise TooManyWebhooks(f"A project has at most {MAX_ENDPOINTS} webhooks; delete one.")
            row = WebhookEndpoint(
                id=chosen,
                project_id=project_id,
                name=name or url[:255],
                url=url,
                event_types=list(dict.fromkeys(event_types)),
                generation=1,
                oldest_generation=1,
                num_failures=0,
                created_at=database_now(),
                updated_at=database_now(),
            )
            session.add(row)
            session.flush()
            session.refresh(row)
            audit.note(session, project_id, "webhook.create", chosen, host=urlsplit(url).hostname)
        return NewSecret(endpoint=_view(backend.settings, row), secret=_secret(backend.settings, row, row.generation))

    return backend.database.write(work)


def get(backend: Backend, project_id: str, endpoint_id: str) -> EndpointView:
    return backend.database.read(lambda session: _view(backend.settings, find(session, project_id, endpoint_id)))


def list_page(backend: Backend, project_id: str, *, limit: int = 20, cursor: str | None = None) -> Page[EndpointView]:
    """List endpoints, newest first."""
    before = read_cursor(cursor)
    rows = backend.database.read(
        lambda session: owned.newest(session, WebhookEndpoint, project_id, before=before, limit=limit + 1)
    )
    return page_of(rows, limit, [_view(backend.settings, row) for row in rows[:limit]])


def patch(backend: Backend, project_id: str, endpoint_id: str, changes: dict[str, Any]) -> EndpointView:
    """Change `name`, `url`, `event_types` or `is_enabled`, as far as `changes` holds them.

    An endpoint that is enabled again gets what waits for it. Raises InvalidRequest, AddressRefused, WebhookNotFound.
    """
    if "event_types" in changes:
        check_types(changes["event_types"])
    if "url" in changes:
        _check_url(backend.settings, changes["url"])

    def work(session: Session) -> EndpointView:
        row = _lock(session, project_id, endpoint_id)
        row.name = changes.get("name", row.name)
        row.url = changes.get("url", row.url)
        row.event_types = list(dict.fromkeys(changes.get("event_types", row.event_types)))
        if "is_enabled" in changes:
            row.disabled_reason = None if changes["is_enabled"] else row.disabled_reason or DISABLED_BY_USER
        if changes:
            row.num_failures, row.paused_until, row.updated_at = 0, None, database_now()
            audit.note(session, project_id, "webhook.patch", endpoint_id, changed=sorted(changes))
        session.flush()
        session.refresh(row)
        return _view(backend.settings, row)

    return backend.database.write(work)


def rotate(backend: Backend, project_id: str, endpoint_id: str, *, keeps_previous: bool) -> NewSecret:
    """Give the endpoint a new secret; if asked to, those before sign for another day beside it.

    Two of them do, so that a rotation that a client repeats does not end the secret which receivers have.
    """

    def work(session: Session) -> NewSecret:
        row = _lock(session, project_id, endpoint_id)
        row.generation += 1
        row.previous_until = database_after(GRACE_SECONDS) if keeps_previous else None
        if not keeps_previous:
            row.oldest_generation = row.generation
        row.updated_at = database_now()
        audit.note(session, project_id, "webhook.rotate", endpoint_id)
        session.flush()
        session.refresh(row)
        return NewSecret(endpoint=_view(backend.settings, row), secret=_secret(backend.settings, row, row.generation))

    return backend.database.write(work)


@writes
def delete(session: Session, project_id: str, endpoint_id: str) -> None:
    """Delete the endpoint with its log and all that waits for it."""
    _lock(session, project_id, endpoint_id)
    webhook_rows.delete_endpoint(session, endpoint_id)
    audit.note(session, project_id, "webhook.delete", endpoint_id)


@reads
def list_deliveries(
    session: Session, project_id: str, endpoint_id: str, *, limit: int = 20, cursor: str | None = None
) -> Page[DeliveryView]:
    """List what went to an endpoint in the last week, or waits to, newest first."""
    before = _decode_place(cursor) if cursor else None
    find(session, project_id, endpoint_id)
    rows = webhook_rows.list_deliveries(session, endpoint_id, before=before, limit=limit + 1)
    shown = rows[:limit]
    is_more = len(rows) > limit
    place = encode_cursor(f"{shown[-1].created_at.isoformat()} {shown[-1].id}") if is_more else None
    return Page(data=[_view_delivery(row) for row in shown], next_cursor=place)


def current_secret(backend: Backend, project_id: str, endpoint_id: str) -> str:
    """Return the newest secret of an endpoint. Raises WebhookNotFound."""

    def work(session: Session) -> str:
        row = find(session, project_id, endpoint_id)
        return _secret(backend.settings, row, row.generation)

    return backend.database.read(work)


def signing_secrets(settings: Settings, row: WebhookEndpoint, *, has_previous: bool) -> list[str]:
    """Return the secrets that sign now, the newest first."""
    oldest = max(row.oldest_generation, row.generation - NUM_KEPT) if has_previous else row.generation
    return [_secret(settings, row, generation) for generation in range(row.generation, oldest - 1, -1)]


def _secret(settings: Settings, row: WebhookEndpoint, generation: int) -> str:
    """Derived from a secret that is not in the database, so that who reads that cannot sign."""
    told = f"webhook {row.id} {generation}".encode()
    digest = hmac.new(session_secret(settings), told, hashlib.sha256).digest()
    return SECRET_PREFIX + base64.b64encode(digest).decode()


def check_types(event_types: Sequence[str]) -> None:
    """Check that all are events of this service. Raises InvalidRequest."""
    errors = [
        FieldError(f"/event_types/{position}", f"{name} is not an event of this service; it has {', '.join(TYPES)}")
        for position, name in enumerate(event_types)
        if name not in TYPES
    ]
    if not event_types:
        errors = [FieldError("/event_types", "must name at least one event")]
    if errors:
        raise InvalidRequest("; ".join(error.detail for error in errors), errors=errors)


def _check_url(settings: Settings, url: str) -> None:
    """Its form, and where its name leads today. A name without an address may get one later."""
    try:
        addresses.resolve(url, AllowedHosts.parse(settings.webhook_allowed_hosts))
    except OSError:
        addresses.check_url(url)


def find(session: Session, project_id: str, endpoint_id: str) -> WebhookEndpoint:
    """Find an endpoint of the project. Raises WebhookNotFound."""
    row = owned.find(session, WebhookEndpoint, project_id, endpoint_id)
    return present(row, WebhookNotFound, f"There is no webhook {endpoint_id}.")


def _lock(session: Session, project_id: str, endpoint_id: str) -> WebhookEndpoint:
    row = owned.lock(session, WebhookEndpoint, endpoint_id, project_id)
    return present(row, WebhookNotFound, f"There is no webhook {endpoint_id}.")


def _decode_place(cursor: str) -> tuple[datetime, str]:
    at, _, delivery_id = decode_cursor(cursor).partition(" ")
    try:
        return datetime.fromisoformat(at), delivery_id
    except ValueError:
        raise InvalidRequest("`cursor` is not one that this list gave out") from None


def _view(settings: Settings, row: WebhookEndpoint) -> EndpointView:
    return from_row(
        EndpointView,
        row,
        event_types=list(row.event_types),
        is_enabled=row.disabled_reason is None,
        secret_hint=f"…{_secret(settings, row, row.generation)[-5:]}",
    )


def _view_delivery(row: WebhookDelivery) -> DeliveryView:
    is_pending = row.delivered_at is None and row.given_up_at is None
    return from_row(
        DeliveryView,
        row,
        status="pending" if is_pending else ("delivered" if row.delivered_at else "given_up"),
        next_try_at=row.next_try_at if is_pending else None,
    )
