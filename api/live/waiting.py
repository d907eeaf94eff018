"""Requests that wait for an end without holding a thread; those that wait for the same share its polls."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

from api.http.problems import RATE_LIMITED, RETRY_AFTER_SECONDS, HttpError
from api.threads import Lane, run_in
from core.services.requests.requests import View, is_ended

MAX_WAITING_OF_KEY = 64
FIRST_POLL_SECONDS = 0.2
MAX_POLL_SECONDS = 1.0


class Waiters:
    """All waiting requests of this process. Lives on the event loop."""

    def __init__(self) -> None:
        self._num_waiting: Counter[str] = Counter()
        self._looks: dict[Hashable, asyncio.Task[Any]] = {}

    async def until_ended(self, key_id: str, what: Hashable, look: Callable[[], View], *, wait_seconds: float) -> View:
        """Return the object once it has ended, or as it is after `wait_seconds`. `what` names it.

        Raises HttpError when the key waits for too much already, and what `look` raises.
        """
        started = time.monotonic()
        view = await run_in(Lane.WAITING, look)
        if is_ended(view) or wait_seconds <= 0:
            return view
        self._require_room(key_id)
        self._num_waiting[key_id] += 1
        try:
            while (waited := time.monotonic() - started) < wait_seconds and not is_ended(view):
                pause = min(max(FIRST_POLL_SECONDS, waited / 10), MAX_POLL_SECONDS)
                await asyncio.sleep(min(pause, wait_seconds - waited))
                view = await self._look(what, look)
        finally:
            self._num_waiting[key_id] -= 1
            if not self._num_waiting[key_id]:
                del self._num_waiting[key_id]
        return view

    def _require_room(self, key_id: str) -> None:
        if self._num_waiting[key_id] >= MAX_WAITING_OF_KEY:
            detail = f"{MAX_WAITING_OF_KEY} requests with this key wait already; ask without `wait`, or later."
            raise HttpError(RATE_LIMITED, detail, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})

    async def _look(self, what: Hashable, look: Callable[[], View]) -> View:
        """Share a look that is in progress, or that began within the shortest pause."""
        task: asyncio.Task[View] | None = self._looks.get(what)
        if task is None:
            task = self._looks[what] = asyncio.create_task(run_in(Lane.WAITING, look))
            task.add_done_callback(partial(self._forget, what, time.monotonic()))
        return await asyncio.shield(task)

    def _forget(self, what: Hashable, began_at: float, task: "asyncio.Task[Any]") -> None:
        is_failed = task.cancelled() or task.exception() is not None
        remaining = 0.0 if is_failed else began_at + FIRST_POLL_SECONDS - time.monotonic()
        task.get_loop().call_later(max(0.0, remaining), self._looks.pop, what, None)
