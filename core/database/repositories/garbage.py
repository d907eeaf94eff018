"""Rows of objects to delete, which are deleted after the rows that named them, never before."""

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from core.database.columns import database_now
from core.database.tables.objects import Garbage


def add_garbage(session: Session, project_id: str, prefix: str, reason: str) -> None:
    if session.get(Garbage, prefix) is None:
        session.add(Garbage(prefix=prefix, project_id=project_id, reason=reason, created_at=database_now()))


def list_garbage(session: Session, *, limit: int) -> list[str]:
    return list(session.scalars(select(Garbage.prefix).order_by(Garbage.created_at).limit(limit)))


def forget_garbage(session: Session, prefix: str) -> None:
    session.execute(delete(Garbage).where(Garbage.prefix == prefix))
