"""Audit trail: who did what to which object, written in the transaction of what it records, and never changed.

The actor is bound where a request or a command begins, and found again wherever a service writes; what workers and the
sweeper do by themselves stands in the events of jobs instead.
"""

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from core.database.columns import database_now
from core.database.repositories import audit as audit_rows
from core.database.tables.audit import AuditEvent
from core.services.backend import Backend
from core.services.ids import new_id
from core.services.pages import page_of, read_cursor
from core.services.views import Page, from_row

DONE = "done"
REFUSED = "refused"
MAX_FORGOTTEN = 1000
"""Events deleted in one pass of the sweeper."""
_MAX_CHARS = 255
_SECONDS_OF_DAY = 86_400.0

AuditFilter = audit_rows.AuditFilter

_actor: ContextVar["Actor | None"] = ContextVar("preftune_actor", default=None)


@dataclass(frozen=True, kw_only=True)
class Actor:
    """Whoever asks, for one request or command."""

    name: str
    key_id: str | None = None
    address: str | None = None
    request_id: str | None = None
    event_ids: dict[tuple[str, str | None], str] = field(default_factory=dict, compare=False)
    """One for each act, chosen before its transaction, which may run twice."""


@dataclass(frozen=True, kw_only=True)
class AuditView:
    id: str
    created_at: datetime
    project_id: str | None
    actor: str
    key_id: str | None
    address: str | None
    request_id: str | None
    action: str
    object_id: str | None
    outcome: str
    detail: dict[str, Any]


@contextmanager
def acting(actor: Actor | None) -> Iterator[None]:
    """Bind the actor while the block runs, in this task and the threads that it asks."""
    token = _actor.set(actor)
    try:
        yield
    finally:
        _actor.reset(token)


def operator_here() -> Actor:
    """Return the actor of a command that runs where the service's settings are."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a uid without a name, as in containers
        user = "unknown"
    return Actor(name=f"operator:{user}"[:_MAX_CHARS], address="local")


def note(
    session: Session,
    project_id: str | None,
    action: str,
    object_id: str | None = None,
    *,
    outcome: str = DONE,
    **detail: Any,
) -> None:
    """Record an act in the transaction that does it; nothing where nobody asked, as in workers."""
    actor = _actor.get()
    if actor is None:
        return
    event_id = actor.event_ids.setdefault((action, object_id), new_id("aud"))
    event = AuditEvent(
        id=event_id,
        at=database_now(),
        project_id=project_id,
        actor=actor.name,
        key_id=actor.key_id,
        address=actor.address,
        request_id=actor.request_id,
        action=action,
        object_id=_printable(object_id) if object_id else None,
        outcome=outcome,
        detail=detail,
    )
    audit_rows.add_event(session, event)


def _printable(text: str) -> str:
    """Return the text's beginning with control characters and the like spelled out: databases refuse some of them."""
    told = (char if char.isprintable() else char.encode("unicode_escape").decode() for char in text[:_MAX_CHARS])
    return "".join(told)[:_MAX_CHARS]


def record(
    backend: Backend, actor: Actor, project_id: str | None, action: str, object_id: str | None, outcome: str
) -> None:
    """Record an act that has no transaction of its own. Raises Unavailable."""
    with acting(actor):
        backend.database.write(lambda session: note(session, project_id, action, object_id, outcome=outcome))


def list_page(backend: Backend, where: AuditFilter, *, limit: int = 20, cursor: str | None = None) -> Page[AuditView]:
    """Return events, newest first."""
    before = read_cursor(cursor)
    rows = backend.database.read(lambda session: audit_rows.list_events(session, where, before=before, limit=limit + 1))
    return page_of(rows, limit, [_view(row) for row in rows[:limit]])


def forget_old(backend: Backend) -> int:
    """Delete events beyond the retention, some at a time; returns how many."""
    seconds = backend.settings.audit_days * _SECONDS_OF_DAY
    return backend.database.write(lambda session: audit_rows.delete_old_events(session, seconds, MAX_FORGOTTEN))


def _view(row: AuditEvent) -> AuditView:
    return from_row(AuditView, row, created_at=row.at)
