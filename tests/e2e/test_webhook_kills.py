"""Webhooks under kills: 1,000 finished jobs, a receiver that fails half the time, the API killed twenty times."""

import random
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from backends import PROJECT, add_dataset, submit
from deployments import COMMAND, QUICK, start
from receiver import receive
from servers import free_port
from tiny_models import make_tiny_model

from core.services.backend import open_backend
from core.services.jobs import steering
from core.services.webhooks import endpoints
from core.settings import Settings

NUM_JOBS = 1000
NUM_KILLS = 20
MAX_REFUSALS = 4
SECONDS = 900
ORDER = ["fine_tuning.job.paused", "fine_tuning.job.cancelled"]


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 120)
def test_no_event_is_lost_invented_or_out_of_order_under_kills(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    port, random_numbers = free_port(), random.Random(7)
    make_tiny_model(tmp_path / "models" / "tiny")
    shared = {
        "DATA_DIR": str(tmp_path / "data"),
        "MODELS_DIR": str(tmp_path / "models"),
        "WEBHOOK_ALLOWED_HOSTS": "127.0.0.1",
        "BROKER_URL": "none",
    }
    settings = QUICK | shared | {"PORT": str(port)}
    with receive() as receiver:
        num_refused: Counter[str] = Counter()

        def answer(event: dict[str, Any]) -> int:
            """Refuse half of what comes, one event at most so often that its next try comes within minutes."""
            if random_numbers.random() < 0.5 or num_refused[event["id"]] == MAX_REFUSALS:
                return 200
            num_refused[event["id"]] += 1
            return 503

        receiver.answer = answer
        with start("api", tmp_path, settings, [*COMMAND, "api"]):
            wait_until_live(port)
        backend = open_backend(Settings(**{name.lower(): value for name, value in shared.items()}))
        add_dataset(backend)
        endpoints.create(backend, PROJECT, url=receiver.url, event_types=ORDER)
        made: list[str] = []
        for _ in range(NUM_KILLS):
            with start("api", tmp_path, settings, [*COMMAND, "api"]) as process:
                wait_until_live(port)
                for _ in range(NUM_JOBS // NUM_KILLS):
                    job_id = submit(backend).id
                    steering.pause(backend, PROJECT, job_id)
                    steering.cancel(backend, PROJECT, job_id)
                    made.append(job_id)
                time.sleep(random_numbers.uniform(0, 1))  # at any moment of what it does
                process.send_signal(signal.SIGKILL)
                process.wait()
        with start("api", tmp_path, settings, [*COMMAND, "api"]):
            deadline = time.monotonic() + SECONDS
            while time.monotonic() < deadline:
                order = first_arrivals(receiver.taken())
                if sum(map(len, order.values())) >= 2 * NUM_JOBS:
                    break
                time.sleep(1)
        backend.close()
        assert order == dict.fromkeys(made, ORDER)
        ids = {(event["data"]["id"], event["type"]): event["id"] for event in receiver.taken()}
        assert all(ids[event["data"]["id"], event["type"]] == event["id"] for event in receiver.taken())
        record_property("num_events", 2 * NUM_JOBS)
        record_property("num_tries", len(receiver.arrived))
        record_property("num_taken_twice", len(receiver.taken()) - 2 * NUM_JOBS)


def first_arrivals(events: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Types by job, in the order in which each event was taken first."""
    order: dict[str, list[str]] = defaultdict(list)
    for event in events:
        if event["type"] not in order[event["data"]["id"]]:
            order[event["data"]["id"]].append(event["type"])
    return dict(order)


def wait_until_live(port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health/live", timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
