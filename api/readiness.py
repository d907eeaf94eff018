"""The answer to health checks, asked of the backend at most every few seconds however often it is wanted."""

import platform
import threading
import time
from functools import cache
from importlib.metadata import distributions

from core.services.backend import Backend
from core.services.operations.health import Readiness, check_readiness

MAX_AGE_SECONDS = 2.0


class ReadinessProbe:
    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._lock = threading.Lock()
        self._answer: Readiness | None = None
        self._asked_at = 0.0

    def ask(self) -> Readiness:
        with self._lock:
            if self._answer is None or time.monotonic() - self._asked_at > MAX_AGE_SECONDS:
                self._answer = check_readiness(self._backend)
                self._asked_at = time.monotonic()
            return self._answer


@cache
def installed_versions() -> dict[str, str]:
    """Of every package that this process could load, and of Python."""
    found = {distribution.name.lower(): distribution.version for distribution in distributions()}
    return {"python": platform.python_version(), **dict(sorted(found.items()))}
