"""Five hundred chats, a third of whose clients hang up, while the runner is killed twenty times: `make test-chat`."""

import json
import random
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest
from api_server import serve
from runner_process import RunningRunner, children_of, running_runner
from tiny_models import make_tiny_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
MODEL = "talker"
NUM_REQUESTS, NUM_CLIENTS, NUM_KILLS = 500, 8, 20
CLEAR = {"runner_failed", "runner_unavailable", "runner_busy", "runner_timed_out"}
PATIENCE_SECONDS = 300


def ask(http: httpx.Client, number: int) -> str:
    """One chat; returns how it ended: `whole`, `left`, or the code of a clear error."""
    leaves = number % 3 == 0
    asked = {
        "model": MODEL,
        "messages": [{"role": "user", "content": f"Question {number}"}],
        "max_tokens": 40,
        "seed": number,
        "stream": number % 2 == 0,
    }
    if leaves:
        asked |= {"stream": True, "max_tokens": 400}
    with http.stream("POST", "/v1/chat/completions", json=asked, timeout=PATIENCE_SECONDS) as answer:
        if answer.status_code != 200:
            return str(json.loads(answer.read())["error"]["code"])
        if not asked["stream"]:
            assert json.loads(answer.read())["usage"]["completion_tokens"] >= 1
            return "whole"
        lines = (line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: "))
        for line in lines:
            if leaves:
                return "left"
            if line == "[DONE]":
                return "whole"
            if "error" in json.loads(line):
                return str(json.loads(line)["error"]["code"])
    raise AssertionError("an answer broke off without a word")


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    make_tiny_model(tmp_path / "models" / MODEL)
    with running_runner(tmp_path) as runner, serve(tmp_path, max_share=1, **runner.settings()) as api:
        ends: Counter[str] = Counter()
        numbers = iter(range(1, NUM_REQUESTS + 1))
        turn = threading.Lock()
        is_over = threading.Event()
        faults: list[BaseException] = []

        def work() -> None:
            while not faults:
                with turn:
                    number = next(numbers, None)
                if number is None:
                    return
                try:
                    end = ask(api.http, number)
                except BaseException as error:
                    faults.append(error)
                    raise
                with turn:
                    ends[end] += 1

        keeper = threading.Thread(target=lambda: keep(runner, is_over, ends))
        clients = [threading.Thread(target=work) for _ in range(NUM_CLIENTS)]
        for thread in (keeper, *clients):
            thread.start()
        for client in clients:
            client.join()
        is_over.set()
        keeper.join()
        assert faults == []
        assert sum(ends.values()) == NUM_REQUESTS
        assert ends.keys() <= {"whole", "left"} | CLEAR, ends
        assert ends["whole"] > NUM_REQUESTS / 4
        assert runner.num_starts > NUM_KILLS
        asked = threading.Thread(target=lambda: ask(api.http, 1))
        asked.start()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while asked.is_alive():
            runner.start_if_wanted()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        while runner.state()["num_answers"] or any(model["num_open"] for model in runner.state()["models"]):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert api.shares.answers.num_held == 0
        assert runner.process is not None
        assert len(children_of(runner.process.pid)) == 1
        assert len(list((tmp_path / "data" / "scratch" / "workers").iterdir())) == 1
        assert engines_over(tmp_path) == 1


def keep(runner: RunningRunner, is_over: threading.Event, ends: "Counter[str]") -> None:
    """Kill the runner as requests are answered, evenly over the run; start it where somebody waits for one."""
    chance = random.Random(0)
    killed = 0
    while not is_over.is_set():
        runner.start_if_wanted()
        is_due = sum(ends.values()) >= killed * NUM_REQUESTS / (NUM_KILLS + 1) + chance.random() * 5
        if killed < NUM_KILLS and is_due and runner.process is not None and runner.process.poll() is None:
            runner.kill()
            killed += 1
        is_over.wait(0.02)


def engines_over(folder: Path) -> int:
    """Count processes that generate in this folder."""
    found = 0
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        found += b"generation" in words and any(str(folder).encode() in word for word in words)
    return found
