"""Child process of `preftune serve`: `python -m cli.child api|worker|runner`, which ends when its parent does."""

import os
import signal
import sys
import threading
import time

from core.quick_imports import import_quickly
from preftune.cli.extras import from_extra

_ENTRIES = {"api": "api.server", "worker": "worker.app", "runner": "worker.runner.app"}
_EXTRA_SECONDS = 10


def main(kind: str, *descriptors: str) -> int:
    """Run the process; a runner is given the descriptor of the socket that it listens on."""
    settings = from_extra("core.settings", "load_settings")()
    watch = threading.Thread(target=_end_with_parent, args=(settings.stop_grace_seconds,), daemon=True)
    watch.start()
    return int(from_extra(_ENTRIES[kind], "run", load=import_quickly)(settings, *map(int, descriptors)))


def _end_with_parent(grace_seconds: float) -> None:
    """End this process when the parent closes the other end of its standard input."""
    while os.read(0, 4096):  # not sys.stdin: Python's end would wait for its lock
        continue
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace_seconds + _EXTRA_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
