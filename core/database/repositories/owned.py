"""Rows with an id that belong to a project, of any table."""

from typing import TypeVar

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from core.database.tables.base import Owned

OwnedRow = TypeVar("OwnedRow", bound=Owned)


def find(session: Session, table: type[OwnedRow], project_id: str, row_id: str) -> OwnedRow | None:
    return session.scalar(select(table).where(table.id == row_id, table.project_id == project_id))


def lock(session: Session, table: type[OwnedRow], row_id: str, project_id: str | None = None) -> OwnedRow | None:
    """Return the row as it is now, locked until the transaction ends; of any project, unless one is named."""
    statement = select(table).where(table.id == row_id)
    if project_id is not None:
        statement = statement.where(table.project_id == project_id)
    return session.scalar(statement.with_for_update().execution_options(populate_existing=True))


def newest(
    session: Session,
    table: type[OwnedRow],
    project_id: str,
    *where: ColumnElement[bool],
    before: str | None,
    limit: int,
) -> list[OwnedRow]:
    """Return rows older than the id `before` that meet the conditions, newest first."""
    conditions = [table.project_id == project_id, *where]
    if before is not None:
        conditions.append(table.id < before)
    return list(session.scalars(select(table).where(*conditions).order_by(table.id.desc()).limit(limit)))
