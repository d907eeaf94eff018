"""Can this process do its work?"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import select

from core.database.columns import database_now
from core.domain.errors import DomainError
from core.services.backend import Backend


@dataclass(frozen=True, kw_only=True)
class Readiness:
    """`degraded`: jobs are accepted and run, only later than with a broker. `down`: neither."""

    status: Literal["ok", "degraded", "down"]
    database: Literal["ok", "down"]
    store: Literal["ok", "down"]
    broker: Literal["ok", "down"]


def check_readiness(backend: Backend) -> Readiness:
    database = _state(lambda: backend.database.read(lambda session: session.scalar(select(database_now()))))
    store = _state(backend.store.check)
    broker = _state(backend.queue.check)
    status: Literal["ok", "degraded", "down"] = "ok" if broker == "ok" else "degraded"
    if "down" in (database, store):
        status = "down"
    return Readiness(status=status, database=database, store=store, broker=broker)


def _state(check: Callable[[], object]) -> Literal["ok", "down"]:
    try:
        check()
    except DomainError:
        return "down"
    return "ok"
