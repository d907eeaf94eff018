"""The worker's entry point with the toy trainer: `python toy_worker.py`, settings from the environment."""

import sys
from pathlib import Path

from core.settings import load_settings
from worker.app import run

if __name__ == "__main__":
    sys.exit(run(load_settings(), (sys.executable, str(Path(__file__).with_name("toy_trainer.py")))))
