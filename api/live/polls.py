"""Polled curves: concurrent readers of one job share one query of the database.

Whoever asks waits for a look that began after it asked, so every answer is as new as if it had been read alone. Pages
are cut on the event loop out of points that are read and encoded once (`core.services.curves.recent_points`).
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from anyio import CapacityLimiter, to_thread

from core.domain.jobs.job_queries import CurveHead
from core.services.backend import Backend
from core.services.curves import pages
from core.services.curves.pages import MetricsQuery
from core.services.curves.recent_points import RecentPoints

_MAX_READERS = 4
"""Looks at the database at a time, for all jobs together."""


class Polls:
    """All jobs that are polled in this process. Lives on the event loop."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._recent = RecentPoints()
        self._looks: dict[tuple[str, str], _SharedRead] = {}
        self._limiter = CapacityLimiter(_MAX_READERS)

    async def page(self, project_id: str, job_id: str, query: MetricsQuery) -> bytes:
        """Return `metrics.page` as JSON. Raises JobNotFound, Unavailable."""
        if query.is_plain:
            head = await self._look(project_id, job_id)
            page = pages.shared_page(self._recent, job_id, head, query)
            if page is not None:
                return page
        return await to_thread.run_sync(pages.json_page, self._backend, project_id, job_id, query)

    async def _look(self, project_id: str, job_id: str) -> CurveHead:
        key = (project_id, job_id)
        look = self._looks.get(key)
        if look is None:
            read = partial(pages.look, self._backend, self._recent, project_id, job_id)
            look = self._looks[key] = _SharedRead(partial(to_thread.run_sync, read, limiter=self._limiter))
        look.num_waiting += 1
        try:
            return await look.wait()
        finally:
            look.num_waiting -= 1
            if not look.num_waiting:
                del self._looks[key]


class _SharedRead:
    def __init__(self, read: Callable[[], Awaitable[CurveHead]]) -> None:
        self.num_waiting = 0
        self._read = read
        self._current: asyncio.Task[CurveHead] | None = None
        self._following: asyncio.Task[CurveHead] | None = None
        """Has not begun to read: whoever asks now may wait for it."""

    async def wait(self) -> CurveHead:
        if self._following is None:
            self._following = asyncio.create_task(self._begin_after(self._current))
            self._following.add_done_callback(_heed)
        return await asyncio.shield(self._following)

    async def _begin_after(self, before: "asyncio.Task[CurveHead] | None") -> CurveHead:
        if before is not None:
            await asyncio.wait((before,))
        self._current, self._following = self._following, None
        return await self._read()


def _heed(task: "asyncio.Task[CurveHead]") -> None:
    """Consume a failure that no client is left to receive."""
    if not task.cancelled():
        task.exception()
