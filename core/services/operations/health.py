"""Health of this process: whether it can do its work."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

from sqlalchemy import select

from core.database.columns import database_now
from core.domain.errors import DomainError
from core.services.backend import Backend

State = Literal["ok", "down"]


@dataclass(frozen=True, kw_only=True)
class Readiness:
    """State of the service. `degraded`: jobs run, only later than with a broker. `down`: no work possible."""

    status: Literal["ok", "degraded", "down"]
    database: State
    store: State
    broker: State


def parts_of(backend: Backend) -> dict[str, Callable[[], State]]:
    """Return the parts that the service needs, each with a check that may take long."""
    checks: dict[str, Callable[[], object]] = {
        "database": lambda: backend.database.read(lambda session: session.scalar(select(database_now()))),
        "store": lambda: backend.store.check(),
        "broker": lambda: backend.queue.check(),
    }
    return {name: partial(_state, check) for name, check in checks.items()}


def summarise(states: Mapping[str, State]) -> Readiness:
    """Combine `states`, keyed by the names of `parts_of`."""
    status: Literal["ok", "degraded", "down"] = "ok" if states["broker"] == "ok" else "degraded"
    if "down" in (states["database"], states["store"]):
        status = "down"
    return Readiness(status=status, **states)


def _state(check: Callable[[], object]) -> State:
    try:
        check()
    except DomainError:
        return "down"
    return "ok"
