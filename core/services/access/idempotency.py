"""`Idempotency-Key`: a creating request takes effect once, however often it is sent.

`begin` also chooses the id of what will be created. Should the process die between creating and answering, the client's
next try gets the same id, finds the thing there, and answers it.
"""

from dataclasses import dataclass

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from core.database.columns import database_after, database_now
from core.database.repositories import bookkeeping
from core.database.tables.bookkeeping import IdempotencyKey
from core.domain.errors import Conflict, InvalidRequest
from core.services.backend import Backend
from core.services.ids import make_id, new_suffix
from core.services.transactions import writes

MAX_AGE_SECONDS = 24 * 3600.0
LEASE_SECONDS = 60.0
"""A request that has not answered for so long is taken for dead, and its key may be tried again."""


class IdempotencyKeyInUse(Conflict):
    code = "idempotency-key-in-use"
    title = "The first request with this key has not been answered yet"


class IdempotencyKeyReused(InvalidRequest):
    code = "idempotency-key-reused"
    title = "This key was sent with another request"


@dataclass(frozen=True, kw_only=True)
class IdempotentRequest:
    key: str
    route: str
    """Method and path."""
    body_sha256: str


@dataclass(frozen=True, kw_only=True)
class Reservation:
    """Right to answer the request of a key; release it with `finish` or `abandon`."""

    project_id: str
    key: str
    token: str
    resource_suffix: str

    def resource_id(self, prefix: str) -> str:
        """Id to create under, such as `job_…`."""
        return make_id(prefix, self.resource_suffix)


@dataclass(frozen=True, kw_only=True)
class KeptAnswer:
    status: int
    headers: dict[str, str]
    body: str


def begin(
    backend: Backend, project_id: str, request: IdempotentRequest, *, lease_seconds: float = LEASE_SECONDS
) -> Reservation | KeptAnswer:
    """Return the stored answer if there is one, else a reservation to make it.

    Raises IdempotencyKeyInUse while another request holds the key, IdempotencyKeyReused for another request.
    """
    token, suffix = new_suffix(), new_suffix()
    try:
        return _reserve(backend, project_id, request, token, suffix, lease_seconds)
    except IntegrityError:
        # Another request inserted the key between our look and our insert.
        return _reserve(backend, project_id, request, token, suffix, lease_seconds)


@writes
def _reserve(
    session: Session, project_id: str, request: IdempotentRequest, token: str, suffix: str, lease_seconds: float
) -> Reservation | KeptAnswer:
    row = bookkeeping.find_key(session, project_id, request.key)
    if row is not None and bookkeeping.is_over(session, row, MAX_AGE_SECONDS):
        session.delete(row)
        session.flush()
        row = None
    if row is None:
        row = IdempotencyKey(
            project_id=project_id,
            key=request.key,
            route=request.route,
            body_sha256=request.body_sha256,
            resource_suffix=suffix,
            lease_token=token,
            lease_expires_at=database_after(lease_seconds),
            response_headers={},
            created_at=database_now(),
        )
        session.add(row)
        session.flush()
    return _take(session, row, request, token, lease_seconds)


def _take(
    session: Session, row: IdempotencyKey, request: IdempotentRequest, token: str, lease_seconds: float
) -> Reservation | KeptAnswer:
    if (row.route, row.body_sha256) != (request.route, request.body_sha256):
        raise IdempotencyKeyReused("Use a new Idempotency-Key for another request.")
    if row.response_status is not None:
        return KeptAnswer(status=row.response_status, headers=row.response_headers, body=row.response_body or "")
    if row.lease_token != token:
        if not bookkeeping.is_lease_over(session, row):
            raise IdempotencyKeyInUse("Wait for the answer to the first request, or send it again in a minute.")
        row.lease_token = token
        row.lease_expires_at = database_after(lease_seconds)
    return Reservation(project_id=row.project_id, key=row.key, token=token, resource_suffix=row.resource_suffix)


@writes
def is_answered(session: Session, project_id: str, key: str) -> bool:
    """Tell whether a request under this key has been answered, so that the same one takes nothing more."""
    row = bookkeeping.find_key(session, project_id, key)
    return row is not None and row.response_status is not None


@writes
def clear_answered(session: Session, project_id: str, key: str, *, older_than_seconds: float = 0.0) -> bool:
    """Forget the answer under a key, so that it can be used for a new request.

    Returns whether the key is free now; it is not while a request holds it.
    """
    row = bookkeeping.find_key(session, project_id, key)
    if row is None:
        return True
    is_held = row.response_status is None and not bookkeeping.is_lease_over(session, row)
    is_fresh = older_than_seconds > 0 and not bookkeeping.is_over(session, row, older_than_seconds)
    if is_held or is_fresh:
        return False
    session.delete(row)
    return True


@writes
def finish(session: Session, reservation: Reservation, answer: KeptAnswer) -> None:
    """Store the answer for repetitions of the request."""
    row = bookkeeping.find_key(session, reservation.project_id, reservation.key)
    if row is not None and row.lease_token == reservation.token:
        row.lease_token = None
        row.lease_expires_at = None
        row.response_status = answer.status
        row.response_headers = answer.headers
        row.response_body = answer.body


@writes
def abandon(session: Session, reservation: Reservation) -> None:
    """Release the key after a failure on our side: a retry may run at once, and creates under the same id."""
    row = bookkeeping.find_key(session, reservation.project_id, reservation.key)
    if row is not None and row.lease_token == reservation.token:
        row.lease_expires_at = database_after(-1)


@writes
def forget_old(session: Session) -> None:
    """Delete keys older than a day."""
    bookkeeping.delete_old_keys(session, MAX_AGE_SECONDS)
