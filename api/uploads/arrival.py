"""Room for a request body, reserved before its first byte is read: in the project's quota and on the disk."""

import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count

from anyio import CancelScope, CapacityLimiter, to_thread
from starlette.requests import Request

from api.uploads.form import MAX_FORM_FRAME_BYTES
from core.domain.errors import Unavailable
from core.services.access import idempotency
from core.services.access.disk_reserve import require_disk
from core.services.access.quotas import ArrivingBody, QuotaExceeded, StorageQuotaExceeded
from core.services.backend import Backend
from core.settings import Settings

_LOOK_BYTES = 16 * 1024**2
"""Between two looks at the disk while a body comes."""


@dataclass
class DiskBudget:
    """Bytes that bodies of this process will still write, so that two do not count on the same free space."""

    settings: Settings
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _expected: dict[int, int] = field(default_factory=dict)
    _numbers: "count[int]" = field(default_factory=count)

    def announce(self, num_bytes: int) -> int:
        """Reserve so many bytes; returns the number of the reservation. Raises DiskReserveReached."""
        with self._lock:
            require_disk(self.settings, sum(self._expected.values()) + num_bytes, "the upload")
            number = next(self._numbers)
            self._expected[number] = num_bytes
        return number

    def note(self, number: int, num_bytes: int) -> None:
        """Update what is still to be written. Raises DiskReserveReached."""
        with self._lock:
            self._expected[number] = num_bytes
            require_disk(self.settings, sum(self._expected.values()), "the rest of the upload")

    def forget(self, number: int) -> None:
        with self._lock:
            self._expected.pop(number, None)


@dataclass(frozen=True, kw_only=True)
class Arrival:
    held_as: str
    watch: Callable[[int], None]
    """Told how many bytes there will be with the next write. Raises what has no room for them."""


@asynccontextmanager
async def arriving(
    request: Request,
    backend: Backend,
    project_id: str,
    budget: DiskBudget,
    limiter: CapacityLimiter,
    *,
    is_repetition: bool = False,
) -> AsyncIterator[Arrival]:
    """Reserve room for the body while it is received. Raises QuotaExceeded, StorageQuotaExceeded, DiskReserveReached.

    A request that was answered before takes nothing, so it is judged by what it says; so is one that is told to repeat
    another, for which there may be no room but the first one's: its quota is decided when the file is recorded.
    """
    body = ArrivingBody(backend, project_id)
    most_bytes = _content_length(request)
    key = request.headers.get("idempotency-key")

    def reserve(take: Callable[[], None]) -> None:
        try:
            take()
        except (QuotaExceeded, StorageQuotaExceeded):
            is_answered = key is not None and idempotency.is_answered(backend, project_id, key)
            if not is_answered and not is_repetition:
                raise
            body.stop()

    declared = declared_bytes(request)
    await to_thread.run_sync(reserve, partial(body.require, declared), limiter=limiter)
    try:
        async with disk_room(request, budget, limiter) as watch_disk:

            def watch(num_bytes: int) -> None:
                reserve(partial(body.require_step, num_bytes, most_bytes))
                watch_disk(num_bytes)

            yield Arrival(held_as=body.id, watch=watch)
    finally:
        with CancelScope(shield=True), suppress(Unavailable):
            await to_thread.run_sync(body.release, limiter=limiter)


@asynccontextmanager
async def disk_room(
    request: Request, budget: DiskBudget, limiter: CapacityLimiter
) -> AsyncIterator[Callable[[int], None]]:
    """Reserve disk space; yields a function that is told of every write. Raises DiskReserveReached."""
    declared = declared_bytes(request)
    number = await to_thread.run_sync(budget.announce, declared, limiter=limiter)
    try:
        yield partial(_look_at_times, budget, number, declared, [0])
    finally:
        budget.forget(number)


def _look_at_times(budget: DiskBudget, number: int, declared: int, looked_at: list[int], num_bytes: int) -> None:
    if num_bytes - looked_at[0] >= _LOOK_BYTES:
        looked_at[0] = num_bytes
        budget.note(number, max(0, declared - num_bytes))


def declared_bytes(request: Request) -> int:
    """Return the size of the file, as far as the head tells: 0 for a body of unknown length."""
    is_form = request.headers.get("content-type", "").lower().startswith("multipart/")
    num_bytes = _content_length(request) or 0
    return max(0, num_bytes - MAX_FORM_FRAME_BYTES) if is_form else num_bytes


def _content_length(request: Request) -> int | None:
    declared = request.headers.get("content-length", "")
    return int(declared) if declared.isdigit() else None
