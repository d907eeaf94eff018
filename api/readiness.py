"""Health checks answered from known states: each part is probed in the background, and none can delay the answer."""

import asyncio
import platform
import time
from collections.abc import Callable
from functools import cache
from importlib.metadata import distributions

from anyio import CapacityLimiter, to_thread

from core.services.backend import Backend
from core.services.operations.health import Readiness, State, parts_of, summarise

MAX_AGE_SECONDS = 2.0
ANSWER_SECONDS = 2.0
"""A part whose look takes longer is told as it was, or as down while nothing is known."""
SILENT_SECONDS = 10.0
"""A part whose look takes longer is down."""


class _Part:
    """Known state of one part. Lives on the event loop; at most one thread probes."""

    def __init__(self, look: Callable[[], State]) -> None:
        self._look = look
        self._limiter = CapacityLimiter(1)
        self._known: State | None = None
        self._looked_at = 0.0
        self._began_at = 0.0
        self._task: asyncio.Task[None] | None = None

    def refresh(self) -> "asyncio.Task[None] | None":
        """Return the probe that is due or in progress."""
        if self._task is not None and not self._task.done():
            return self._task
        if self._known is not None and time.monotonic() - self._looked_at <= MAX_AGE_SECONDS:
            return None
        self._began_at = time.monotonic()
        self._task = asyncio.create_task(self._run())
        return self._task

    @property
    def state(self) -> State:
        is_looking = self._task is not None and not self._task.done()
        is_silent = is_looking and time.monotonic() - self._began_at > SILENT_SECONDS
        return "down" if self._known is None or is_silent else self._known

    async def _run(self) -> None:
        try:
            self._known = await to_thread.run_sync(self._look, limiter=self._limiter)
        except Exception:  # noqa: BLE001 - whatever it is, the part cannot be used
            self._known = "down"
        self._looked_at = time.monotonic()


class ReadinessProbe:
    """Probe of all parts. Lives on the event loop."""

    def __init__(self, backend: Backend) -> None:
        self._parts = {name: _Part(look) for name, look in parts_of(backend).items()}

    async def ask(self) -> Readiness:
        """Answer within `ANSWER_SECONDS`, whatever the parts do."""
        looks = [task for part in self._parts.values() if (task := part.refresh()) is not None]
        if looks:
            await asyncio.wait(looks, timeout=ANSWER_SECONDS)
        return summarise({name: part.state for name, part in self._parts.items()})


@cache
def installed_versions() -> dict[str, str]:
    """Return the versions of Python and of every package that this process could load."""
    found = {distribution.name.lower(): distribution.version for distribution in distributions()}
    return {"python": platform.python_version(), **dict(sorted(found.items()))}
