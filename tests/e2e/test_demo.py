"""The demo in a terminal, on a tiny model: to its end, and left with Ctrl-C."""

import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from tiny_demo import NAME
from tiny_models import make_tiny_model

pytestmark = pytest.mark.slow  # not yet timed on a quiet machine

SCRIPT = Path(__file__).resolve().parents[1] / "support" / "tiny_demo.py"
PATIENCE_SECONDS = 200


class Terminal:
    """The demo as the leader of a terminal's session."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.screen = ""
        environment = os.environ | {"TERM": "xterm", "COLUMNS": "120", "LINES": "50"}
        command = [sys.executable, str(SCRIPT), "demo", "--data-dir", str(folder / "data")]
        command += ["--models-dir", str(folder / "models")]
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
        )
        os.close(slave)

    def read_until(self, pattern: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not re.search(pattern, self.screen):
            assert time.monotonic() < deadline, self.screen[-3000:]
            assert self._read(), self.screen[-3000:]

    def finish(self) -> int:
        while self._read():
            continue
        return self.process.wait(PATIENCE_SECONDS)

    def interrupt(self) -> None:
        """Ctrl-C goes to every process of the session's foreground."""
        os.killpg(self.process.pid, signal.SIGINT)

    def processes(self) -> list[psutil.Process]:
        """What runs on the demo's folder."""
        found = []
        for process in psutil.process_iter():
            try:
                if any(str(self.folder) in part for part in process.cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def close(self) -> None:
        for process in self.processes():
            process.kill()
        self.process.wait(PATIENCE_SECONDS)
        os.close(self._master)

    def _read(self) -> bool:
        try:
            part = os.read(self._master, 65536)
        except OSError:  # the other end is closed
            return False
        self.screen += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", part.decode(errors="replace"))
        return bool(part)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    make_tiny_model(tmp_path / "models" / NAME)
    opened = Terminal(tmp_path)
    yield opened
    opened.close()


def test_the_demo_runs_to_before_and_after(terminal: Terminal) -> None:
    assert terminal.finish() == 0, terminal.screen[-3000:]
    for heading in ("1  base model", "2  service", "3  data", "4  job", "5  tuned policy", "6  what changed"):
        assert heading in terminal.screen
    assert "305 pairs to learn from, 28 held out" in terminal.screen
    for shown in ("rewards/chosen", "rewards/rejected", "margin", "tokens/s", " left", "before", "after"):
        assert shown in terminal.screen, shown
    assert re.search(r"held-out, \d+ rows  accuracy \d+\.\d% \(", terminal.screen)
    assert terminal.processes() == []
    assert (terminal.folder / "data" / "policy" / "model.safetensors").is_file()


def test_ctrl_c_leaves_nothing_running(terminal: Terminal) -> None:
    terminal.read_until(r"sft +train|sft train")
    assert len(terminal.processes()) >= 3  # demo, service, API, worker, trainer
    terminal.interrupt()
    assert terminal.finish() == 130, terminal.screen[-3000:]
    assert terminal.processes() == []
    assert "nothing is left running" in terminal.screen
