"""Presence of a worker or API process: while it lives, a row that says what it is, and how its clock and disks are.

Nothing rests on it: leases decide who works on what.
"""

import threading
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any, Literal

import structlog
from sqlalchemy import select

from core.clock import utc_now
from core.database.columns import database_now
from core.domain.errors import DomainError
from core.services.access.disk_reserve import room_of
from core.services.backend import Backend
from core.services.estimates import workers
from core.services.estimates.workers import WorkerFacts

MAX_CLOCK_OFFSET_SECONDS = 5.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a process says of itself once and for all, beside `WorkerFacts`."""

    kind: Literal["worker", "api"]
    num_devices: int = 0
    lanes: str | None = None
    takes_nodes: bool = False
    """Whether it takes jobs on several nodes."""


class Presence:
    """Renews the row from a thread of its own; a failing database is tried again at the next beat."""

    def __init__(self, backend: Backend, facts: WorkerFacts, description: Description) -> None:
        self._backend = backend
        self._facts = facts
        self._description = description
        self._warned: set[str] = set()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="presence", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread and delete the row."""
        self._is_over.set()
        self._thread.join()
        try:
            workers.leave(self._backend, self._facts.name)
        except DomainError as error:
            _log.warning("presence_stays", meaning="the row of this process stays until it is old", reason=error.detail)

    def beat(self) -> None:
        """Renew the row. Raises Unavailable."""
        workers.note(self._backend, replace(self._facts, facts=self._look()))

    def _run(self) -> None:
        while True:
            try:
                self.beat()
            except DomainError as error:
                _log.warning("presence_not_renewed", reason=error.detail)
            except Exception:  # noqa: BLE001 - a beat that fails must not be the last one
                _log.exception("presence_not_renewed")
            if self._is_over.wait(min(self._backend.settings.heartbeat_seconds, workers.BEAT_SECONDS)):
                return

    def _look(self) -> dict[str, Any]:
        """Return the description with the state of clock and disks, and warn of either."""
        before = utc_now()
        there = self._backend.database.read(lambda session: session.scalar(select(database_now())))
        assert there is not None
        offset = (before + (utc_now() - before) / 2 - there).total_seconds()
        self._warn("clock", is_wrong=abs(offset) > MAX_CLOCK_OFFSET_SECONDS, seconds=round(offset, 1))
        rooms = room_of(self._backend.settings)
        for room in rooms:
            self._warn(f"disk of {room.what}", is_wrong=room.is_reached, free_bytes=room.free_bytes)
        return {
            "kind": self._description.kind,
            "version": version("preftune"),
            "num_devices": self._description.num_devices,
            "lanes": self._description.lanes,
            "takes_nodes": self._description.takes_nodes,
            "clock_offset_seconds": offset,
            "disks": {
                room.what: {"free_bytes": room.free_bytes, "reserve_bytes": room.reserve_bytes} for room in rooms
            },
        }

    def _warn(self, what: str, *, is_wrong: bool, **facts: object) -> None:
        """Log what is wrong once, until it is right again."""
        if is_wrong and what not in self._warned:
            self._warned.add(what)
            _log.warning("out_of_bounds", what=what, **facts)
        elif not is_wrong:
            self._warned.discard(what)
