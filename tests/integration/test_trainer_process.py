"""Ends of trainer processes: each is told once, whatever signals are sent while it goes."""

import os
import resource
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from toy_jobs import process_state, wait_for

from worker.attempt import trainer_process
from worker.attempt.trainer_process import Ended, LaunchPlan, TrainerProcess


@pytest.mark.parametrize("send", [TrainerProcess.kill, TrainerProcess.terminate])
def test_a_signal_to_a_trainer_that_has_just_ended_does_not_hide_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, send: Callable[[TrainerProcess], None]
) -> None:
    """The end was there, and the thread that waits for it had not looked yet, as on a frozen worker that wakes."""
    may_look, waitid = threading.Event(), os.waitid

    def late(*arguments: Any) -> Any:
        assert may_look.wait(10)
        return waitid(*arguments)

    monkeypatch.setattr(trainer_process.os, "waitid", late)
    plan = LaunchPlan(command=(sys.executable, "-c", "raise SystemExit(3)"), num_threads=1)
    process = TrainerProcess(plan, tmp_path)
    wait_for(lambda: process_state(process.pid) == "Z", "the process to end")
    send(process)
    may_look.set()
    assert process.inbox.get(timeout=10) == Ended(returncode=3, has_spoken_nonsense=False)
    process.kill()
    process.close()


def test_the_most_memory_that_a_trainer_had_is_known(tmp_path: Path) -> None:
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    wanted = own + 64 * 1024**2
    plan = LaunchPlan(command=(sys.executable, "-c", f"b'x' * {wanted}"), num_threads=1)
    process = TrainerProcess(plan, tmp_path)
    ended = process.inbox.get(timeout=30)
    process.close()
    assert isinstance(ended, Ended)
    assert ended.peak_bytes is not None
    assert wanted <= ended.peak_bytes < wanted + 256 * 1024**2


def test_the_rest_of_an_endless_line_is_left_out_and_told(tmp_path: Path) -> None:
    """A secret across the place where the line is cut would stand in the next piece without its beginning."""
    program = "import sys; sys.stderr.write('x' * 65530 + ' canary-of-a-line' + 'y' * 200_000 + '\\nnext\\n')"
    plan = LaunchPlan(command=(sys.executable, "-c", program), num_threads=1)
    lines: list[str] = []
    process = TrainerProcess(plan, tmp_path, lines.append)
    process.inbox.get(timeout=30)
    process.close()
    assert lines == ["x" * 65530 + " canar", "=== 200,012 more characters of that line are left out ===", "next"]


def test_every_state_of_a_progress_bar_is_a_line(tmp_path: Path) -> None:
    """It ends none itself: as one line, all but its begin would be left out."""
    program = "import sys; sys.stderr.write(''.join(f'\\r{n} of 9000' for n in range(9000)) + '\\nnext\\r\\n')"
    plan = LaunchPlan(command=(sys.executable, "-c", program), num_threads=1)
    lines: list[str] = []
    process = TrainerProcess(plan, tmp_path, lines.append)
    process.inbox.get(timeout=30)
    process.close()
    assert lines == ["", *(f"{n} of 9000" for n in range(9000)), "next"]
