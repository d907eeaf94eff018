"""Wake-ups: whoever sends one never waits, whatever state the broker is in."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from servers import RedisServer, free_port, run_redis, silent_server
from toy_jobs import wait_for

from core.domain.errors import Unavailable
from core.queue.celery_wake_queue import open_queue
from core.queue.wake_queue import NullWakeQueue
from core.settings import Settings, SettingsError, load_settings

AT_ONCE_SECONDS = 0.1


def settings(tmp_path: Path, broker_url: str) -> Settings:
    return load_settings(data_dir=tmp_path, broker_url=broker_url)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with run_redis() as server:
        yield server


@pytest.fixture
def silent_broker() -> Iterator[str]:
    with silent_server() as address:
        yield f"redis://{address}/0"


def seconds_of_wakes(tmp_path: Path, broker_url: str, count: int = 50) -> float:
    queue = open_queue(settings(tmp_path, broker_url))
    start = time.monotonic()
    for _ in range(count):
        queue.wake()
    return time.monotonic() - start


def test_a_wake_up_arrives(server: RedisServer, tmp_path: Path) -> None:
    queue = open_queue(settings(tmp_path, server.url))
    queue.check()
    queue.wake()
    client = redis.Redis(port=server.port)
    wait_for(lambda: client.llen("preftune:train") == 1, "the message", 5)


def test_wake_ups_that_wait_are_sent_as_one(server: RedisServer, tmp_path: Path) -> None:
    queue = open_queue(settings(tmp_path, server.url))
    queue.check()
    for _ in range(100):
        queue.wake()
    client = redis.Redis(port=server.port)
    wait_for(lambda: client.llen("preftune:train"), "a message", 5)
    time.sleep(0.3)  # whatever else would come
    assert client.llen("preftune:train") < 20


def test_nobody_waits_for_a_broker_that_is_not_there(tmp_path: Path) -> None:
    url = f"redis://127.0.0.1:{free_port()}/0"
    assert seconds_of_wakes(tmp_path, url) < AT_ONCE_SECONDS
    with pytest.raises(Unavailable):
        open_queue(settings(tmp_path, url)).check()


def test_nobody_waits_for_a_broker_that_says_nothing(tmp_path: Path, silent_broker: str) -> None:
    assert seconds_of_wakes(tmp_path, silent_broker) < AT_ONCE_SECONDS
    start = time.monotonic()
    with pytest.raises(Unavailable):
        open_queue(settings(tmp_path, silent_broker)).check()
    assert time.monotonic() - start < 4


def test_nobody_waits_for_a_broker_that_stops_answering(server: RedisServer, tmp_path: Path) -> None:
    queue = open_queue(settings(tmp_path, server.url))
    queue.check()
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        start = time.monotonic()
        for _ in range(50):
            queue.wake()
        assert time.monotonic() - start < AT_ONCE_SECONDS
    finally:
        os.kill(server.process.pid, signal.SIGCONT)


def test_sending_goes_on_after_the_broker_was_away(tmp_path: Path) -> None:
    port = free_port()
    queue = open_queue(settings(tmp_path, f"redis://127.0.0.1:{port}/0"))
    queue.wake()
    with run_redis(port) as server:
        client = redis.Redis(port=server.port)

        def arrived() -> bool:
            queue.wake()
            return client.llen("preftune:train") > 0

        wait_for(arrived, "a message", 20)


def test_the_file_broker_takes_wake_ups(tmp_path: Path) -> None:
    queue = open_queue(settings(tmp_path, "files"))
    queue.check()
    queue.wake()
    wait_for(lambda: list((tmp_path / "broker").glob("*.train.msg")), "the message", 5)


def test_without_a_broker_nothing_is_sent(tmp_path: Path) -> None:
    queue = open_queue(settings(tmp_path, "none"))
    assert isinstance(queue, NullWakeQueue)
    queue.wake()
    queue.check()


def test_another_broker_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="PREFTUNE_BROKER_URL"):
        open_queue(settings(tmp_path, "amqp://127.0.0.1"))
