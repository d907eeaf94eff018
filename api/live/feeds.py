"""Feeds of watched jobs: one poller looks for changes, and the clients of a job that changed read them.

Clients hold a cursor and nothing else, so a slow one costs nothing: it reads on from where it is, as one that comes
back after a break. Those that are equally far (nearly all) share one read and the bytes made of it.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from anyio import CapacityLimiter, to_thread

from api.live.frames import Frames, make_frames
from core.domain.errors import Unavailable
from core.services.backend import Backend
from core.services.curves import live
from core.services.curves.live import LiveCursor
from core.services.jobs import jobs
from core.services.views import JobHead

POLL_SECONDS = 0.25
_MAX_READERS = 4
"""Reads of the database at a time, for all streams together."""
_MAX_SHARED = 16
"""Reads of one job kept for others that are as far, until the job moves."""

log = structlog.get_logger("api")


class Feed:
    """Feed of one watched job. Lives on the event loop."""

    def __init__(self, backend: Backend, project_id: str, job_id: str, limiter: CapacityLimiter) -> None:
        self.job_id = job_id
        self.num_watchers = 0
        self.moved = asyncio.Event()
        """Set when the job has moved on; then replaced by a new one."""
        self._backend = backend
        self._project_id = project_id
        self._limiter = limiter
        self._head: JobHead | None = None
        self._shared: dict[LiveCursor, asyncio.Task[Frames]] = {}

    def update(self, head: JobHead | None) -> None:
        """Notify the watchers of news. None: the job was deleted."""
        if head is not None and head == self._head:
            return
        self._head = head
        self._shared = {}
        self.moved.set()
        self.moved = asyncio.Event()

    async def read(self, after: LiveCursor) -> Frames:
        """Return the changes after the cursor. Raises JobNotFound, Unavailable."""
        task = self._shared.get(after)
        if task is None or (task.done() and (task.cancelled() or task.exception())):
            task = asyncio.create_task(self._read(after))
            if len(self._shared) < _MAX_SHARED:
                self._shared[after] = task
        return await asyncio.shield(task)

    async def _read(self, after: LiveCursor) -> Frames:
        def work() -> Frames:
            return make_frames(live.read_changes(self._backend, self._project_id, self.job_id, after), after)

        return await to_thread.run_sync(work, limiter=self._limiter)


class Feeds:
    """All jobs that are watched in this process. Lives on the event loop."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._feeds: dict[tuple[str, str], Feed] = {}
        self._limiter = CapacityLimiter(_MAX_READERS)
        self._poller: asyncio.Task[None] | None = None

    @property
    def num_streams(self) -> int:
        return sum(feed.num_watchers for feed in self._feeds.values())

    @contextmanager
    def watch(self, project_id: str, job_id: str) -> Iterator[Feed]:
        """Watch a job inside the context."""
        key = (project_id, job_id)
        feed = self._feeds.get(key)
        if feed is None:
            feed = self._feeds[key] = Feed(self._backend, project_id, job_id, self._limiter)
        feed.num_watchers += 1
        self._keep_polling()
        try:
            yield feed
        finally:
            feed.num_watchers -= 1
            if not feed.num_watchers:
                del self._feeds[key]

    def _keep_polling(self) -> None:
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll())

    async def _poll(self) -> None:
        """Poll until nobody watches."""
        while self._feeds:
            watched = list(self._feeds.values())
            job_ids = {feed.job_id for feed in watched}
            try:
                heads = await to_thread.run_sync(jobs.list_heads, self._backend, job_ids, limiter=self._limiter)
            except Unavailable as error:
                log.warning("streams_wait", reason=error.detail)
            else:
                for feed in watched:
                    feed.update(heads.get(feed.job_id))
            await asyncio.sleep(POLL_SECONDS)
