"""Deployments whose processes run on the code of one commit or another, over the same data."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from servers import free_port

ROOT = Path(__file__).resolve().parents[2]
KEY = "a-bootstrap-key-of-more-than-32-characters"
QUICK = {"SWEEP_SECONDS": "0.5", "POLL_SECONDS": "0.5", "HEARTBEAT_SECONDS": "0.5", "LEASE_SECONDS": "4"}
_START_SECONDS = 120


@dataclass
class Deployment:
    """One database, one store; `code` says whose API and workers."""

    folder: Path
    settings: dict[str, str]
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def run(self, code: Path, *arguments: str) -> None:
        """One command, to its end."""
        done = subprocess.run([*_command(), *arguments], cwd=self.folder, env=self._environment(code), check=False)
        assert done.returncode == 0, f"{arguments} of {code} ended with {done.returncode}"

    def start(self, code: Path, kind: str, **settings: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{kind}-{len(self._processes)}.log").open("wb") as log:
            process = subprocess.Popen(
                [*_command(), kind],
                cwd=self.folder,
                env=self._environment(code) | {f"PREFTUNE_{name}": value for name, value in settings.items()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._processes.append(process)
        return process

    def start_api(self, code: Path) -> httpx.Client:
        port = free_port()
        process = self.start(code, "api", HOST="127.0.0.1", PORT=str(port))
        headers = {"Authorization": f"Bearer {KEY}"}
        client = httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60)
        wait_until(lambda: _is_up(client, process), "the API to start")
        return client

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        """In order; what it holds it hands back."""
        process.terminate()
        process.wait(60)

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()

    def _environment(self, code: Path) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFTUNE_")}
        own = {
            "DATA_DIR": str(self.folder / "data"),
            "MODELS_DIR": str(self.folder / "models"),
            "API_KEY": KEY,
            "BROKER_URL": "none",
            "NUM_THREADS": "1",
            "DEVICE": "cpu",
        }
        values = own | QUICK | self.settings
        return kept | {f"PREFTUNE_{name}": value for name, value in values.items()} | {"PYTHONPATH": str(code)}


def _command() -> tuple[str, ...]:
    return sys.executable, "-P", "-m", "cli.main"


def _is_up(client: httpx.Client, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, f"the API ended with {process.returncode}"
    try:
        return client.get("/health/live").status_code == 200
    except httpx.TransportError:
        return False


def wait_until(condition: Any, what: str, seconds: float = _START_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.1)


def ask(client: httpx.Client, method: str, path: str, **options: Any) -> Any:
    answer = client.request(method, path, **options)
    assert answer.status_code < 300, f"{method} {path}: {answer.status_code} {answer.text[:1000]}"
    return answer.json()
