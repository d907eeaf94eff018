"""`preftune serve` with the toy trainer: `python toy_serve.py`, settings from the environment.

Its children are this script again, with their kind as argument.
"""

import sys
from pathlib import Path

import cli.child
import cli.serve
import worker.app
from core.settings import load_settings

HERE = Path(__file__).resolve()

if __name__ == "__main__" and len(sys.argv) == 1:
    cli.serve.COMMAND = (sys.executable, str(HERE))  # type: ignore[assignment]
    cli.serve._LOCK_SECONDS = 3
    sys.exit(cli.serve.run_serve(load_settings()))
elif __name__ == "__main__":
    commands = [(sys.executable, str(HERE.with_name(name))) for name in ("toy_trainer.py", "toy_group.py")]
    worker.app.run.__defaults__ = tuple(commands)
    sys.exit(cli.child.main(sys.argv[1]))
