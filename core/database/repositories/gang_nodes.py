"""Nodes of a running attempt: pulses, and what node 0 and the others let each other know.

The other nodes write to their own rows only, without the lock of the job's row and without renewing its lease, which is
node 0's to renew.
"""

from typing import Any, NamedTuple

from sqlalchemy import delete, exists, func, select, update
from sqlalchemy.orm import Session

from core.database.columns import database_now, seconds_since
from core.database.tables.base import rows_of
from core.database.tables.gangs import GangMember
from core.database.tables.jobs import Job

_MEMBERS, _JOBS = rows_of(GangMember), rows_of(Job)


class NodeRow(NamedTuple):
    node: int
    host: str
    address: str
    pulse_seq: int
    port: int | None
    part: dict[str, Any] | None
    report: dict[str, Any] | None


_COLUMNS = tuple(_MEMBERS.c[name] for name in NodeRow._fields)


def beat(session: Session, member: str, job_id: str, token: str) -> bool:
    """Add a pulse of a node; False once the attempt with this token is over."""
    pulse = {"pulse_at": database_now(), "pulse_seq": _MEMBERS.c.pulse_seq + 1}
    return _write(session, member, job_id, token, pulse)


def tell(session: Session, member: str, job_id: str, token: str, values: dict[str, Any]) -> bool:
    """Set `port`, `part` or `report` of a node; False once the attempt with this token is over."""
    return _write(session, member, job_id, token, values)


def list_nodes(session: Session, job_id: str, token: str) -> list[NodeRow]:
    """Return the nodes of the attempt with this token, in the order of their numbers."""
    mine = (_MEMBERS.c.job_id == job_id, _MEMBERS.c.claim_token == token)
    return [NodeRow(*row) for row in session.execute(select(*_COLUMNS).where(*mine).order_by(_MEMBERS.c.node))]


def forget_over(session: Session, seconds: float) -> None:
    """Delete rows that nobody comes back for: of ended attempts, and of workers that were waiting and are gone."""
    current = select(_JOBS.c.claim_token).where(_JOBS.c.id == _MEMBERS.c.job_id).scalar_subquery()
    is_over = _MEMBERS.c.attempt.is_not(None) & (func.coalesce(current, "") != _MEMBERS.c.claim_token)
    is_gone = _MEMBERS.c.attempt.is_(None) & (seconds_since(_MEMBERS.c.pulse_at) > seconds)
    session.execute(delete(_MEMBERS).where(is_over | is_gone))


def _write(session: Session, member: str, job_id: str, token: str, values: dict[str, Any]) -> bool:
    mine = (_MEMBERS.c.id == member, _MEMBERS.c.job_id == job_id, _MEMBERS.c.claim_token == token)
    is_running = exists().where(_JOBS.c.id == job_id, _JOBS.c.claim_token == token)
    statement = update(_MEMBERS).where(*mine, is_running).values(values)
    return session.execute(statement.returning(_MEMBERS.c.id)).one_or_none() is not None
