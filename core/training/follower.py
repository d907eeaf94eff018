"""The process of one rank but the leader's: `python -m core.training.follower <folder> <rank>`."""

import os
import sys
from pathlib import Path

import transformers

from core.children.parent import end_with_parent
from core.training.failures import TrainingStopped
from core.training.run_on_devices import follow


def main(folder: Path, rank: int) -> int:
    end_with_parent(lambda: os._exit(70))
    transformers.utils.logging.disable_progress_bar()
    try:
        follow(folder, rank)
    except TrainingStopped:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
