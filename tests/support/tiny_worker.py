"""The worker's entry point with the real trainer: `python tiny_worker.py`, settings from the environment."""

import sys

from core.settings import load_settings
from worker.app import run

if __name__ == "__main__":
    sys.exit(run(load_settings()))
