"""Rates of keys over all API processes: each takes a second's worth of tokens from the key's bucket in the database."""

import hashlib
from dataclasses import dataclass

from sqlalchemy.exc import IntegrityError

from core.database.repositories import rates as rows
from core.services.backend import Backend

BURST_SECONDS = 10.0
"""Seconds' worth of the rate that may come at once."""
BATCH_SECONDS = 1.0
"""A process takes so many seconds' worth at once, so that the database is asked about once a second
at most, while the bucket has as many."""

_MAX_CHARS = 64


@dataclass(frozen=True, kw_only=True)
class Withdrawal:
    num_tokens: int
    """Requests that may be let through."""
    seconds: float
    """Time until the next token, where there is none."""


def size_of(requests_per_minute: int) -> float:
    """Return how many requests may come at once."""
    return max(1.0, requests_per_minute / 60 * BURST_SECONDS)


def batch_of(requests_per_minute: int) -> int:
    """Return how many tokens one process takes at once, which is the most that it holds."""
    return max(1, int(requests_per_minute / 60 * BATCH_SECONDS))


def withdraw(backend: Backend, key_id: str, requests_per_minute: int) -> Withdrawal:
    """Take a batch of tokens for requests of one process. Raises Unavailable."""
    per_second = requests_per_minute / 60
    wanted = batch_of(requests_per_minute)
    size = size_of(requests_per_minute)

    def take() -> tuple[int, float]:
        return backend.database.write(
            lambda session: rows.withdraw(session, _name(key_id), wanted, per_second=per_second, size=size)
        )

    try:
        taken, seconds = take()
    except IntegrityError:  # another process made the bucket between our look and our insert
        taken, seconds = take()
    return Withdrawal(num_tokens=taken, seconds=seconds)


def forget_full(backend: Backend) -> None:
    """Delete full buckets: they say no more than none."""
    backend.database.write(rows.delete_full)


def _name(key_id: str) -> str:
    """Return the bucket's name: users that a proxy names may have long ones."""
    return key_id if len(key_id) < _MAX_CHARS else hashlib.sha256(key_id.encode()).hexdigest()
