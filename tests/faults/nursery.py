"""Workers and APIs of fault runs, forked from a process that has imported everything (`warm_processes`)."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from warm_processes import WarmPopen

WORKER = Path(__file__).resolve().with_name("fault_worker.py")


class Process:
    """One process."""

    def __init__(self, popen: "subprocess.Popen[bytes]", kind: str) -> None:
        self.pid = popen.pid
        self.kind = kind
        self._popen = popen

    @property
    def code(self) -> int | None:
        """Negative for the signal that ended it; None while it runs."""
        return self._popen.poll()

    @property
    def is_running(self) -> bool:
        return self.code is None

    def send(self, number: int) -> None:
        self._popen.send_signal(number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self.wait()

    def wait(self, seconds: float = 240) -> int:
        return self._popen.wait(seconds)


def start(kind: str, environment: dict[str, str], log: Path, trainer_command: Sequence[str] | None) -> Process:
    """Start an `api`, or a worker with the toy trainer or, without a command, the real one; it writes to the log."""
    worker = [str(WORKER), "real" if trainer_command is None else "toy"]
    command = ["-P", "-m", "cli.main", "api"] if kind == "api" else worker
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFTUNE_")}
    with log.open("ab") as output:
        popen = WarmPopen(
            [sys.executable, *command],
            cwd=log.parent,
            env=kept | environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    return Process(popen, kind)
