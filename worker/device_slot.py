"""Use of a worker's device by one at a time: training, or generation in the time that training leaves."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_RETURN_SECONDS = 60.0


class DeviceSlot:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_training = 0

    @property
    def is_wanted(self) -> bool:
        """Whether a job trains or is about to: who has borrowed the device gives it back at once."""
        return self._num_training > 0

    @contextmanager
    def training(self) -> Iterator[None]:
        """Hold the device for a job; who has borrowed it has a minute to give it back.

        One that does not is a fault of ours, and then the job and it share the device.
        """
        self._num_training += 1
        is_held = self._lock.acquire(timeout=_RETURN_SECONDS)
        try:
            yield
        finally:
            self._num_training -= 1
            if is_held:
                self._lock.release()

    @contextmanager
    def borrowed(self) -> Iterator[bool]:
        """Hold the device if it is free, and tell whether it was."""
        is_held = not self.is_wanted and self._lock.acquire(blocking=False)
        try:
            yield is_held
        finally:
            if is_held:
                self._lock.release()
