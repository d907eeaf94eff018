"""Jobs and sweeps watched in a pseudo-terminal: curves, findings, a service that goes away, the outcome."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from api_server import RunningApi
from backends import BASE_MODEL, claim, point, publication
from relay import Relay
from toy_jobs import wait_for

from core.domain.doctor.findings import Finding
from core.domain.jobs.failure_codes import FailureCode
from core.domain.trainer_protocol import MetricPoint
from core.services.attempts import lifecycle, recording
from core.services.attempts.claimed_job import ClaimedJob
from core.services.sweeps import progress

FINDING = Finding(
    rule="loss-stuck",
    level="warning",
    message="The loss stays where it was.",
    advice="Raise the learning rate.",
    stage="dpo",
    step=20,
    evidence={"mean_loss": 0.693},
)
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A command in a terminal."""

    def __init__(self, *arguments: str, columns: int, lines: int) -> None:
        self._near, far = pty.openpty()
        fcntl.ioctl(far, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        environment = {name: text for name, text in os.environ.items() if not name.startswith("PREFTUNE_")}
        environment |= {"TERM": "xterm-256color", "LANG": "C.UTF-8", "PYTHONUTF8": "1"}
        environment |= {"COLUMNS": str(columns), "LINES": str(lines)}
        command = [sys.executable, "-m", "cli.main", *arguments]
        self.process = subprocess.Popen(command, stdin=far, stdout=far, stderr=far, env=environment, close_fds=True)
        os.close(far)
        self._bytes = b""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with suppress(OSError):
            while data := os.read(self._near, 65536):
                self._bytes += data

    @property
    def text(self) -> str:
        return " ".join(ESCAPES.sub("", self._bytes.decode("utf-8", "replace")).split())

    def shows(self, text: str) -> None:
        wait_for(lambda: text in self.text, f"{text!r} in the terminal", 60)


@contextmanager
def watching(
    url: str, watched_id: str, columns: int = 80, lines: int = 24, command: tuple[str, ...] = ("watch",)
) -> Iterator[Terminal]:
    terminal = Terminal(*command, watched_id, "--url", url, columns=columns, lines=lines)
    try:
        yield terminal
    finally:
        terminal.process.kill()
        terminal.process.wait()


@pytest.fixture
def held(api: RunningApi) -> ClaimedJob:
    api.submit()
    taken = claim(api.backend)
    lifecycle.begin(taken)
    return taken


def dpo_point(step: int) -> MetricPoint:
    rewards = {"rewards/chosen": step / 10, "rewards/rejected": -step / 10, "rewards/margins": step / 5}
    return point(step, loss=0.7 - step / 100, **rewards)


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (160, 60)])
def test_curves_words_and_success(api: RunningApi, held: ClaimedJob, columns: int, lines: int) -> None:
    with Relay(api.url) as relay, watching(relay.url, held.job_id, columns, lines) as terminal:
        terminal.shows(held.job_id)
        recording.record_points(held, [dpo_point(step) for step in range(1, 11)])
        terminal.shows("rewards/rejected -1.0000 rewards/margins 2.0000")
        assert any(0x2800 < ord(char) < 0x2900 for char in terminal.text)
        relay.is_refusing = True
        relay.cut()
        terminal.shows("Trying again")
        recording.record_findings(held, [FINDING])
        recording.record_points(held, [dpo_point(11)])
        relay.is_refusing = False
        terminal.shows("doctor: The loss stays where it was. Raise the learning rate.")
        terminal.shows("rewards/margins 2.2000")
        lifecycle.finish_succeeded(held, publication(api.backend, held))
        assert terminal.process.wait(60) == 0


def test_a_failed_job_is_an_exit_code(api: RunningApi, held: ClaimedJob) -> None:
    with watching(api.url, held.job_id) as terminal:
        terminal.shows(held.job_id)
        lifecycle.finish_failed(held, FailureCode.BAD_DATA, "Line 3 is empty.")
        assert terminal.process.wait(60) == 1
        terminal.shows("Line 3 is empty.")


def test_a_generation_is_watched_through_an_absence_of_the_service(api: RunningApi) -> None:
    body = {"models": [BASE_MODEL], "prompts": ["Say it."]}
    generation_id = str(api.http.post("/generations", json=body).json()["id"])
    with Relay(api.url) as relay, watching(relay.url, generation_id, command=("generate", "watch")) as terminal:
        terminal.shows("queued: ")
        relay.is_refusing = True
        relay.cut()
        terminal.shows("Trying again")
        api.http.post(f"/generations/{generation_id}/cancel")
        relay.is_refusing = False
        terminal.shows("cancelled: ")
        assert terminal.process.wait(60) == 0


def test_a_sweep_is_watched_through_an_absence_of_the_service(api: RunningApi) -> None:
    body = {"job": {"base_model": BASE_MODEL, "dataset_id": api.dataset_id()}, "grid": {"beta": [0.1, 0.2]}}
    sweep_id = str(api.http.post("/sweeps", json=body).json()["id"])
    with Relay(api.url) as relay, watching(relay.url, sweep_id, command=("sweep", "watch")) as terminal:
        terminal.shows("running: ")
        relay.is_refusing = True
        relay.cut()
        terminal.shows("Trying again")
        api.http.post(f"/sweeps/{sweep_id}/cancel")
        progress.step(api.backend)
        relay.is_refusing = False
        terminal.shows("cancelled: ")
        assert terminal.process.wait(60) == 0
