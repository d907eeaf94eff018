"""A child's side of its start: it must not outlive the process that started it, which holds its standard input open."""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


def end_with_parent(end: Callable[[], object]) -> None:
    """Call `end` in a thread of its own once the parent closes the other end of standard input, as its death does."""
    threading.Thread(target=_wait, args=(end,), name="parent", daemon=True).start()


def die_with_parent() -> None:
    """Ask the kernel to kill this process with its parent, even while Python's lock is held. Linux only.

    A parent that died before this call is not noticed by it.
    """
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _wait(end: Callable[[], object]) -> None:
    while os.read(0, 4096):  # not sys.stdin: Python's end would wait for its lock
        continue
    end()
