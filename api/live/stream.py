"""`text/event-stream` answers: one job, from a cursor on, until it ends or the client disconnects."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.access.middleware import STILL_ALLOWED
from api.access.shares import holder_of, shares_of
from api.downloads import ABORT
from api.http.clients import until_gone
from api.live.feeds import Feed, Feeds
from api.live.frames import HEARTBEAT, PREAMBLE, Frames, end_frame
from core.domain.errors import NotFound, Unavailable
from core.services.curves.live import LiveCursor

EVENT_GAP_SECONDS = 0.27
"""Between two metric or status events of one client: four a second, also where they arrive a little unevenly."""
PROGRESS_SECONDS = 1.0
"""Between two status events that tell of nothing but progress."""
HEARTBEAT_SECONDS = 10.0
SEND_SECONDS = 30.0
"""A client that takes nothing for so long is cut off; it comes back with Last-Event-ID."""
_RETRY_SECONDS = 1.0
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
GUARD_SECONDS = 2.0
"""Time between two looks at whether the client may still listen."""
AT_SHUTDOWN = "at_shutdown"
"""Key of `scope["state"]`: what the server calls to end an answer that has no end of its own."""


class EventStream(Response):
    media_type = "text/event-stream"

    def __init__(self, feeds: Feeds, project_id: str, job_id: str, after: LiveCursor) -> None:
        super().__init__(headers=_HEADERS)
        del self.headers["content-length"]
        self._feeds = feeds
        self._key = (project_id, job_id)
        self._after = after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with shares_of(scope).streams.hold(holder_of(scope)), self._feeds.watch(*self._key) as feed:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            writer = asyncio.create_task(_Writer(feed, self._after, send).run())
            listener = asyncio.create_task(until_gone(receive))
            guard = asyncio.create_task(_until_refused(scope["state"].get(STILL_ALLOWED)))
            scope["state"][AT_SHUTDOWN] = listener.cancel
            try:
                await asyncio.wait((writer, listener, guard), return_when=asyncio.FIRST_COMPLETED)
                if writer.done():
                    writer.result()
            except TimeoutError:
                scope["state"].get(ABORT, lambda: None)()
                return
            finally:
                await _cancel(writer, listener, guard)
            await _finish(send)


class _Writer:
    """Sends the changes to one client, at a limited rate."""

    def __init__(self, feed: Feed, after: LiveCursor, send: Send) -> None:
        self._feed = feed
        self._cursor = after
        self._send = send
        self._paced_at = 0.0
        self._status_at = 0.0
        self._standing: tuple[object, ...] | None = None
        self._status = b""

    async def run(self) -> None:
        """Send until the end; raises TimeoutError when the client reads nothing."""
        await self._write(PREAMBLE)
        while True:
            moved = self._feed.moved
            try:
                frames = await self._feed.read(self._cursor)
            except NotFound:
                await self._write(end_frame(self._cursor, self._feed.job_id, "deleted"))
                return
            except Unavailable:
                await self._write(HEARTBEAT)
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            await self._deliver(frames)
            if frames.end:
                await self._write(frames.end)
                return
            if not frames.has_more:
                await self._wait(moved)

    async def _deliver(self, frames: Frames) -> None:
        if frames.reset:
            await self._write(frames.reset)
        if frames.metric:
            await self._write_paced(frames.metric)
        if frames.events:
            await self._write(frames.events)
        self._cursor = frames.cursor
        is_due = time.monotonic() - self._status_at >= PROGRESS_SECONDS
        is_news = frames.standing != self._standing
        if is_news or frames.end or (is_due and not frames.has_more and frames.status != self._status):
            await self._write_paced(frames.status)
            self._status_at = time.monotonic()
            self._standing, self._status = frames.standing, frames.status

    async def _wait(self, moved: asyncio.Event) -> None:
        """Wait until the job changes, sending keep-alives."""
        while True:
            try:
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    await moved.wait()
                return
            except TimeoutError:
                await self._write(HEARTBEAT)

    async def _write_paced(self, frame: bytes) -> None:
        await asyncio.sleep(self._paced_at + EVENT_GAP_SECONDS - time.monotonic())
        await self._write(frame)
        self._paced_at = time.monotonic()

    async def _write(self, frame: bytes) -> None:
        async with asyncio.timeout(SEND_SECONDS):
            await self._send({"type": "http.response.body", "body": frame, "more_body": True})


async def _until_refused(still_allowed: Callable[[], Awaitable[bool]] | None) -> None:
    """Wait until the key or session that opened the stream works no more; an outage ends no stream."""
    while True:
        await asyncio.sleep(GUARD_SECONDS)
        if still_allowed is not None:
            with suppress(Unavailable):
                if not await still_allowed():
                    return


async def _finish(send: Send) -> None:
    try:
        async with asyncio.timeout(1.0):
            await send({"type": "http.response.body", "body": b"", "more_body": False})
    except TimeoutError:
        return


async def _cancel(*tasks: "asyncio.Task[None]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
