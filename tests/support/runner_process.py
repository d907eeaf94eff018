"""A real runner for tests: the process that `preftune serve` starts, over the folders of an API under test."""

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

SECRET = "runner-secret-of-tests-0123456789"
COMMAND = (sys.executable, "-P", "-m", "cli.child", "runner")
END_SECONDS = 30


@dataclass(kw_only=True)
class RunningRunner:
    """One listening socket, and whichever process answers on it now."""

    listener: socket.socket
    environment: dict[str, str]
    log: Path
    process: "subprocess.Popen[bytes] | None" = None
    num_starts: int = 0
    _client: httpx.Client = field(default_factory=lambda: httpx.Client(trust_env=False, timeout=60))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def settings(self) -> dict[str, Any]:
        """What an API is given to find it."""
        return {"runner_url": self.url, "runner_secret": SECRET}

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*COMMAND, str(self.listener.fileno())],
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=(self.listener.fileno(),),
            )
        self.num_starts += 1

    def start_if_wanted(self) -> bool:
        """Start it as `preftune serve` does: where it is not there and somebody has connected."""
        is_gone = self.process is None or self.process.poll() is not None
        if is_gone and select.select([self.listener], [], [], 0)[0]:
            self.start()
            return True
        return False

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def state(self) -> dict[str, Any]:
        answer = self._client.get(f"{self.url}/state", headers={"Authorization": f"Bearer {SECRET}"})
        found: dict[str, Any] = answer.raise_for_status().json()
        return found

    def close(self) -> None:
        self._client.close()
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()
            try:
                self.process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
        self.listener.close()


@contextmanager
def running_runner(folder: Path, **settings: object) -> Iterator[RunningRunner]:
    """Run one over `folder/data` and `folder/models`, the folders of `api_server.serve`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFTUNE_")}
    own = {
        "DATA_DIR": folder / "data",
        "MODELS_DIR": folder / "models",
        "RUNNER_SECRET": SECRET,
        "RUNNER_THREADS": 1,
        "RUNNER_SHARING": "equal",  # else whatever else the machine does comes first
        **{name.upper(): value for name, value in settings.items()},
    }
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    (folder / "data").mkdir(exist_ok=True)
    environment = kept | {f"PREFTUNE_{name}": str(value) for name, value in own.items()}
    runner = RunningRunner(listener=listener, environment=environment, log=folder / "runner.log")
    runner.start()
    try:
        yield runner
    finally:
        runner.close()


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started and that are still there."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found
