"""A child's side of its start: it must not outlive the process that started it, which holds its standard input open."""

import os
import threading
from collections.abc import Callable


def end_with_parent(end: Callable[[], object]) -> None:
    """Call `end` in a thread of its own once the parent closes the other end of standard input, as its death does."""
    threading.Thread(target=_wait, args=(end,), name="parent", daemon=True).start()


def _wait(end: Callable[[], object]) -> None:
    while os.read(0, 4096):  # not sys.stdin: Python's end would wait for its lock
        continue
    end()
