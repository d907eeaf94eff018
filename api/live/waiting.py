"""Requests that wait for an end without holding a thread; those that wait for the same share its polls."""

import asyncio
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any

from api.access.shares import Holder, Share
from api.threads import Lane, run_in
from core.services.requests.requests import View, is_ended

FIRST_POLL_SECONDS = 0.2
MAX_POLL_SECONDS = 1.0


class Waiters:
    """All waiting requests of this process. Lives on the event loop."""

    def __init__(self, share: Share) -> None:
        self._share = share
        self._looks: dict[Hashable, asyncio.Task[Any]] = {}

    def of(self, holder: Holder) -> "HeldWaiters":
        return HeldWaiters(self, holder)

    async def until_ended(self, holder: Holder, what: Hashable, look: Callable[[], View], wait_seconds: float) -> View:
        """Wait as `HeldWaiters` says."""
        started = time.monotonic()
        view = await run_in(Lane.WAITING, look)
        if is_ended(view) or wait_seconds <= 0:
            return view
        with self._share.hold(holder):
            while (waited := time.monotonic() - started) < wait_seconds and not is_ended(view):
                pause = min(max(FIRST_POLL_SECONDS, waited / 10), MAX_POLL_SECONDS)
                await asyncio.sleep(min(pause, wait_seconds - waited))
                view = await self._look(what, look)
        return view

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


@dataclass(frozen=True)
class HeldWaiters:
    """Waiting requests, for one holder of shares."""

    waiters: Waiters
    holder: Holder

    async def until_ended(self, what: Hashable, look: Callable[[], View], *, wait_seconds: float) -> View:
        """Return the object once it has ended, or as it is after `wait_seconds`. `what` names it.

        Raises HttpError when the holder waits for too much already, and what `look` raises.
        """
        return await self.waiters.until_ended(self.holder, what, look, wait_seconds)
