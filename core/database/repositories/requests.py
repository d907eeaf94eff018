"""Rows of light-lane requests: queued, leased to one lane at a time, ended by who holds the lease."""

from collections.abc import Collection
from typing import TypeVar

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session

from core.database.columns import database_after, database_now
from core.database.tables.requests import Holdable, Leased, LeasedRequest
from core.domain.request_status import RequestStatus

Request = TypeVar("Request", bound=LeasedRequest)
AnyLeased = TypeVar("AnyLeased", bound=Leased)

WAITING = (RequestStatus.QUEUED, RequestStatus.RUNNING)


def find_request(session: Session, table: type[Request], job_id: str, request_id: str) -> Request | None:
    return session.scalar(select(table).where(table.id == request_id, table.job_id == job_id))


def list_requests(session: Session, table: type[Request], job_id: str) -> list[Request]:
    """Return requests, newest first."""
    return list(session.scalars(select(table).where(table.job_id == job_id).order_by(table.id.desc())))


def list_done(session: Session, table: type[Request], job_ids: Collection[str], limit: int) -> list[Request]:
    """Return requests of jobs that have succeeded, newest first."""
    is_done = (table.job_id.in_(job_ids), table.status == RequestStatus.SUCCEEDED)
    return list(session.scalars(select(table).where(*is_done).order_by(table.id.desc()).limit(limit)))


def count_waiting(session: Session, table: type[Leased], project_id: str) -> int:
    mine = (table.project_id == project_id, table.status.in_(WAITING))
    return session.scalars(select(func.count()).select_from(table).where(*mine)).one()


def claim_next(session: Session, table: type[AnyLeased], token: str, lease_seconds: float) -> AnyLeased | None:
    """Claim the oldest request that is queued, or whose lane is gone, and that is not held."""
    is_left = and_(table.status == RequestStatus.RUNNING, table.lease_expires_at < database_now())
    wanted = [or_(table.status == RequestStatus.QUEUED, is_left)]
    if issubclass(table, Holdable):
        wanted.append(table.is_held.is_(False))
    statement = select(table).where(*wanted).order_by(table.id).limit(1).with_for_update(skip_locked=True)
    request = session.scalar(statement)
    if request is not None:
        request.status = RequestStatus.RUNNING
        request.lease_token = token
        request.lease_expires_at = database_after(lease_seconds)
        request.num_tries += 1
        session.flush()
    return request


def find_held(session: Session, table: type[AnyLeased], request_id: str, token: str) -> AnyLeased | None:
    """Return the request, locked, if that token still holds the lease."""
    return session.scalar(select(table).where(table.id == request_id, table.lease_token == token).with_for_update())
