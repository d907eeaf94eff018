"""The operator's request that this worker ends: finish the step, write a checkpoint, release the job."""

import threading
import time


class Drain:
    def __init__(self, grace_seconds: float) -> None:
        self._grace_seconds = grace_seconds
        self._begun = threading.Event()
        self._began_at: float | None = None

    def begin(self) -> None:
        """Begin the drain; safe in a signal handler of a thread that does not wait here, also nested."""
        if self._began_at is None:
            self._began_at = time.monotonic()
            self._begun.set()

    @property
    def is_begun(self) -> bool:
        return self._began_at is not None

    @property
    def is_overdue(self) -> bool:
        """Whether whoever stops us will not wait any longer."""
        return self._began_at is not None and time.monotonic() - self._began_at > self._grace_seconds

    def wait(self, seconds: float) -> bool:
        """Wait; True as soon as the drain has begun."""
        return self._begun.wait(seconds)
