"""Child process of `preftune serve`: `python -m cli.child api|worker|runner`, which ends when its parent does."""

import os
import signal
import sys
import time
from functools import partial

from core.children.parent import end_with_parent
from core.quick_imports import import_quickly
from preftune.cli.extras import from_extra

_ENTRIES = {"api": "api.server", "worker": "worker.app", "runner": "worker.runner.app"}
_EXTRA_SECONDS = 10


def main(kind: str, *descriptors: str) -> int:
    """Run the process; a runner is given the descriptor of the socket that it listens on."""
    settings = from_extra("core.settings", "load_settings")()
    end_with_parent(partial(_end, settings.stop_grace_seconds))
    return int(from_extra(_ENTRIES[kind], "run", load=import_quickly)(settings, *map(int, descriptors)))


def _end(grace_seconds: float) -> None:
    """End this process: gracefully, then at once."""
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace_seconds + _EXTRA_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
