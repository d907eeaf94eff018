"""File locks: held by an open descriptor, released by the kernel when the last process that has it ends."""

import fcntl
import time
from collections.abc import Callable

_PAUSE_SECONDS = 0.1


def try_to_lock(descriptor: int) -> bool:
    """Take the lock of an open file, unless another process holds it; return whether it was taken."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def wait_for_lock(descriptor: int, max_seconds: float, while_waiting: Callable[[], object] = lambda: None) -> bool:
    """Take the lock of an open file; False when another process still holds it after so many seconds."""
    deadline = time.monotonic() + max_seconds
    while not try_to_lock(descriptor):
        if time.monotonic() > deadline:
            return False
        while_waiting()
        time.sleep(_PAUSE_SECONDS)
    return True
