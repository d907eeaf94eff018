"""Sessions of the dashboard on the server's side: signing in and out is recorded, and what was signed out stays so."""

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from core.database.repositories import audit as rows
from core.services.access import audit
from core.services.access.api_keys import Grant
from core.services.access.audit import Actor
from core.services.backend import Backend
from core.services.transactions import reads, writes


@writes
def end(session: Session, grant: Grant, session_id: str, seconds: float) -> None:
    """Sign a session out, which would last for so many seconds yet; idempotent. Raises Unavailable."""
    rows.end_session(session, session_id, seconds)
    audit.note(session, grant.project_id, "session.sign_out", session_id[:16])


@reads
def is_ended(session: Session, session_id: str) -> bool:
    """Whether the session was signed out. Raises Unavailable."""
    return rows.is_session_ended(session, session_id)


def take_code(backend: Backend, number: str, seconds: float) -> bool:
    """Use up a one-time sign-in code, which would last for so many seconds yet; False when it was used before."""
    name = f"code {number}"
    try:
        return backend.database.write(lambda session: rows.end_session(session, name, seconds))
    except IntegrityError:  # another process took it meanwhile
        return False


def record_sign_in(backend: Backend, actor: Actor, grant: Grant | None) -> None:
    """Record a sign-in, or a refused one. Raises Unavailable."""
    if grant is None:
        audit.record(backend, actor, None, "session.sign_in", None, audit.REFUSED)
    else:
        audit.record(backend, actor, grant.project_id, "session.sign_in", grant.key_id, audit.DONE)


def forget_old(backend: Backend) -> None:
    """Delete sessions that would have ended by now."""
    backend.database.write(rows.delete_expired_sessions)
