"""Retries while a database or store is away."""

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from core.domain.errors import Unavailable

FIRST_PAUSE_SECONDS = 1.0
MAX_PAUSE_SECONDS = 60.0

Result = TypeVar("Result")

_log = logging.getLogger(__name__)


def pause_seconds(num_failures: int) -> float:
    """Return a pause with full jitter under a limit that doubles from 1 s to 60 s."""
    limit = min(MAX_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(num_failures, 16))
    return random.uniform(limit / 4, limit)


def patiently(
    work: Callable[[], Result],
    *,
    between_tries: Callable[[], None],
    max_seconds: float,
    on_failure: Callable[[Unavailable, int], None] | None = None,
) -> Result:
    """Retry `work` while it raises Unavailable; the last one is raised after `max_seconds`.

    `between_tries` is called several times a second and may raise to give up earlier. `on_failure` is given each error
    and how many there were before it.
    """
    deadline = time.monotonic() + max_seconds
    num_failures = 0
    while True:
        try:
            return work()
        except Unavailable as error:
            if time.monotonic() > deadline:
                raise
            _log.warning("%s; trying again", error.detail)
            if on_failure is not None:
                on_failure(error, num_failures)
        _sleep(pause_seconds(num_failures), between_tries)
        num_failures += 1


def _sleep(seconds: float, between: Callable[[], None]) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        between()
        threading.Event().wait(min(left, 0.1))
