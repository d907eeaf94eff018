"""A worker of fault runs, `python fault_worker.py toy|real`: what is killed counts there, and not who comes first."""

import sys
from pathlib import Path

import worker.light.generations
from core.settings import load_settings
from worker.app import TRAINER_COMMAND, run

TOY_TRAINER = Path(__file__).resolve().parents[1] / "support" / "toy_trainer.py"

if __name__ == "__main__":
    worker.light.generations._NICENESS = 0
    sys.exit(run(load_settings(), (sys.executable, str(TOY_TRAINER)) if sys.argv[1] == "toy" else TRAINER_COMMAND))
