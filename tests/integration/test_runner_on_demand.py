"""The runner of `preftune serve`: started by the first connection, ended when idle, started again."""

import os
import threading
import time
from pathlib import Path

import httpx

from cli.runner import RunnerOnDemand

WAIT_SECONDS = 90


def tick_until(runner: RunnerOnDemand, asking: threading.Thread) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while asking.is_alive():
        runner.tick()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_it_runs_while_it_is_wanted(tmp_path: Path) -> None:
    own = {"DATA_DIR": tmp_path / "data", "MODELS_DIR": tmp_path / "models", "RUNNER_IDLE_SECONDS": 0.5}
    own |= {"RUNNER_SECRET_FILE": tmp_path / "of-another-runner"}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFTUNE_")}
    lock = os.open(tmp_path, os.O_RDONLY)
    runner = RunnerOnDemand(lambda: kept | {f"PREFTUNE_{name}": str(value) for name, value in own.items()}, lock)
    url, secret = runner.for_api["PREFTUNE_RUNNER_URL"], runner.for_api["PREFTUNE_RUNNER_SECRET"]
    answers: list[httpx.Response] = []

    def ask() -> None:
        headers = {"Authorization": f"Bearer {secret}"}
        answers.append(httpx.get(f"{url}/state", headers=headers, timeout=WAIT_SECONDS, trust_env=False))

    runner.tick()
    assert not runner.child.is_running, "nobody has asked for it"
    for _ in range(2):
        asking = threading.Thread(target=ask)
        asking.start()
        tick_until(runner, asking)
        assert answers.pop().json() == {"num_answers": 0, "models": []}
        deadline = time.monotonic() + WAIT_SECONDS
        while runner.child.is_running:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        runner.tick()
        assert runner.child.num_quick_deaths == 0, "it ended because nobody asked"
    os.close(lock)
