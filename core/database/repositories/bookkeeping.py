"""Rows of idempotency keys and of the sweeper's lock."""

from sqlalchemy import ColumnElement, delete, or_, select, update
from sqlalchemy.orm import Session

from core.database.columns import database_after, database_now
from core.database.tables.bookkeeping import IdempotencyKey, SweeperLock

SWEEPER_LOCK = "sweeper"


def find_key(session: Session, project_id: str, key: str) -> IdempotencyKey | None:
    statement = select(IdempotencyKey).where(IdempotencyKey.project_id == project_id, IdempotencyKey.key == key)
    return session.scalar(statement.with_for_update())


def is_over(session: Session, row: IdempotencyKey, max_age_seconds: float) -> bool:
    """Condition that the row is older than a day."""
    return bool(session.scalar(select(_over(max_age_seconds)).where(_same(row))))


def is_lease_over(session: Session, row: IdempotencyKey) -> bool:
    return bool(session.scalar(select(IdempotencyKey.lease_expires_at < database_now()).where(_same(row))))


def delete_old_keys(session: Session, max_age_seconds: float) -> None:
    session.execute(delete(IdempotencyKey).where(_over(max_age_seconds)))


def take_sweeper_lock(session: Session, name: str, owner: str, seconds: float) -> bool:
    """Take the sweeper's lock for the next `seconds`; return whether `owner` has it."""
    free = or_(SweeperLock.owner == owner, SweeperLock.expires_at < database_now())
    statement = (
        update(SweeperLock)
        .where(SweeperLock.name == name, free)
        .values(owner=owner, expires_at=database_after(seconds))
        .returning(SweeperLock.name)
        .execution_options(synchronize_session=False)
    )
    return session.scalar(statement) is not None


def ensure_sweeper_lock(session: Session, name: str) -> None:
    if session.scalar(select(SweeperLock.name).where(SweeperLock.name == name)) is None:
        session.add(SweeperLock(name=name, owner="", expires_at=database_now()))


def _over(max_age_seconds: float) -> ColumnElement[bool]:
    return IdempotencyKey.created_at < database_after(-max_age_seconds)


def _same(row: IdempotencyKey) -> ColumnElement[bool]:
    return (IdempotencyKey.project_id == row.project_id) & (IdempotencyKey.key == row.key)
