"""The process of one rank but the leader's: `python -m core.training.follower <folder> <rank>`."""

import os
import sys
import threading
from pathlib import Path

import transformers

from core.training.failures import TrainingStopped
from core.training.run_on_devices import follow


def main(folder: Path, rank: int) -> int:
    threading.Thread(target=_end_with_leader, name="leader", daemon=True).start()
    transformers.utils.logging.disable_progress_bar()
    try:
        follow(folder, rank)
    except TrainingStopped:
        return 0
    return 0


def _end_with_leader() -> None:
    """End this process when the leader closes the other end of its standard input."""
    pipe = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115 - for as long as the process lives
    while pipe.read(1):
        continue
    os._exit(70)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
