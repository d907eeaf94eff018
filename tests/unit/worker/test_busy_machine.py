"""OpenMP's threads wait briefly while other processes want the processor, and spin again afterwards."""

import os
import subprocess
import sys
import time

import pytest

from worker.processes import start
from worker.processes.busy_machine import BUSY_SHARE, QUIET_INTERVALS, BusyMachine, WaitingTime

SPINNING = """
import time, torch
from concurrent.futures import ThreadPoolExecutor
from worker.processes.busy_machine import IdleTeam, gnu_openmp
torch.set_num_threads(2)
values = torch.ones(2**20)
def spent():
    before = time.process_time()
    for _ in range(40):
        values.add_(1.0)
        time.sleep(0.01)
    return time.process_time() - before
library = gnu_openmp()
if library is None:
    print("none")
else:
    spent()
    team, thread = IdleTeam(library), ThreadPoolExecutor(1)
    long = spent()
    thread.submit(team.make).result()
    short = spent()
    thread.submit(team.dissolve).result()
    print(long, short, spent())
"""
"""Processor seconds of forty short operations with pauses between them, in which their threads wait."""


def test_a_machine_counts_as_quiet_after_some_quiet_intervals() -> None:
    machine = BusyMachine()
    assert not machine.judge(0.0)
    assert machine.judge(BUSY_SHARE)
    for _ in range(QUIET_INTERVALS - 1):
        assert machine.judge(0.0)
    assert machine.judge(BUSY_SHARE / 2), "neither busy nor quiet: counted from the start"
    for _ in range(QUIET_INTERVALS - 1):
        assert machine.judge(0.0)
    assert not machine.judge(0.0)
    assert not machine.judge(BUSY_SHARE / 2)


def test_a_process_beside_busy_ones_waits() -> None:
    waiting = WaitingTime()
    if not waiting.is_known:
        pytest.skip("the system does not tell")
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        end = time.process_time() + 0.2
        while time.process_time() < end:
            pass
        assert waiting.share() > BUSY_SHARE
    finally:
        for other in others:
            other.kill()
            other.wait()


def test_threads_wait_without_spinning_while_there_is_an_idle_team() -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("with one processor they never spin long")
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    command = [sys.executable, "-c", SPINNING]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120, env=environment)
    if done.stdout.strip() == "none":
        pytest.skip("torch has another OpenMP library here")
    long, short, again = map(float, done.stdout.split())
    assert short < long / 2
    assert short < again / 2


def test_processes_that_compute_watch_how_busy_the_machine_is(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    class Program:
        @staticmethod
        def main(_: object) -> int:
            seen.append("main")
            return 0

    monkeypatch.setattr(start, "import_quickly", lambda _: Program)
    monkeypatch.setattr(start, "shorten_waiting_while_busy", lambda: seen.append("watch"))
    assert start.main("scoring", None) == 0  # type: ignore[arg-type]
    assert seen == ["watch", "main"]
