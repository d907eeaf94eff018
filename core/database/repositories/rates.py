"""Token buckets of keys, in the database's time: what all API processes together let through."""

from datetime import timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from core.database.columns import database_now
from core.database.repositories.attempts import database_time
from core.database.tables.access import RateBucket


def withdraw(session: Session, key_id: str, wanted: int, *, per_second: float, size: float) -> tuple[int, float]:
    """Take up to `wanted` tokens from the key's bucket; return how many, and the seconds until there is one."""
    row = session.scalar(select(RateBucket).where(RateBucket.key_id == key_id).with_for_update())
    now = database_time(session)
    if row is None:
        row = RateBucket(key_id=key_id, full_at=now)
        session.add(row)
    behind = max(0.0, (row.full_at - now).total_seconds())
    # A clock that was put back, or a rate that was raised: a bucket is never emptier than empty.
    available = max(0.0, size - behind * per_second)
    taken = min(wanted, int(available + 1e-6))
    left = available - taken
    row.full_at = now + timedelta(seconds=(size - left) / per_second)
    session.flush()
    return taken, 0.0 if taken else (1 - available) / per_second


def delete_full(session: Session) -> None:
    session.execute(delete(RateBucket).where(RateBucket.full_at < database_now()))
