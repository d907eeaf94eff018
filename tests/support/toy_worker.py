"""The worker's entry point with the toy trainer: `python toy_worker.py`, settings from the environment."""

import sys
from pathlib import Path

from core.settings import load_settings
from worker.app import run

if __name__ == "__main__":
    here = Path(__file__).parent
    commands = [(sys.executable, str(here / name)) for name in ("toy_trainer.py", "toy_group.py")]
    sys.exit(run(load_settings(), *commands))
