"""Workers on real brokers: woken at once, and at work without one, whatever comes out of it."""

import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis
from servers import RedisServer, run_redis
from toy_jobs import WorkerProcess, check_succeeded, submit_toy, view, wait_for, wait_for_status, wait_for_step
from toy_trainer import Script

from core.queue.celery_wake_queue import open_queue
from core.services.backend import Backend

NEVER_POLLS = {"poll_seconds": 3600, "sweep_seconds": 3600}
"""Whatever starts then was woken by a message."""
SLOW = Script(steps=30, step_seconds=0.05)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with run_redis() as server:
        yield server


def with_broker(backend: Backend, broker_url: str) -> Backend:
    settings = backend.settings.model_copy(update={"broker_url": broker_url})
    settings.__dict__.pop("effective_broker_url", None)  # cached
    return replace(backend, settings=settings, queue=open_queue(settings))


def wait_until_listening(worker: WorkerProcess) -> None:
    wait_for(lambda: " ready." in worker.log.read_text(), "the worker to listen")


def test_a_message_over_redis_starts_a_job(backend: Backend, server: RedisServer, tmp_path: Path) -> None:
    woken = with_broker(backend, server.url)
    with WorkerProcess(woken, tmp_path / "worker.log", **NEVER_POLLS) as worker:
        wait_until_listening(worker)
        job_id = submit_toy(woken, Script())
        wait_for_status(woken, job_id, "succeeded", "failed")
        check_succeeded(woken, job_id, Script())
        worker.send(signal.SIGTERM)
        assert worker.wait() == 0


def test_a_message_over_files_starts_a_job(backend: Backend, tmp_path: Path) -> None:
    woken = with_broker(backend, "files")
    with WorkerProcess(woken, tmp_path / "worker.log", **NEVER_POLLS) as worker:
        wait_until_listening(worker)
        job_id = submit_toy(woken, Script())
        wait_for_status(woken, job_id, "succeeded", "failed")
        check_succeeded(woken, job_id, Script())
        torn = woken.settings.data_dir / "broker" / "00000000000000000000_torn.train.msg"
        torn.write_bytes(b'{"half":')
        wait_for(lambda: not torn.exists(), "the torn message to go")
        second = submit_toy(woken, Script(steps=3), reuse=False)
        wait_for_status(woken, second, "succeeded", "failed")


def test_a_busy_worker_takes_no_message_from_others(backend: Backend, server: RedisServer, tmp_path: Path) -> None:
    woken = with_broker(backend, server.url)
    with WorkerProcess(woken, tmp_path / "worker.log", **NEVER_POLLS) as worker:
        wait_until_listening(worker)
        job_id = submit_toy(woken, SLOW)
        wait_for_step(woken, job_id, "sft", 1)
        client = redis.Redis(port=server.port)
        for _ in range(3):
            woken.queue.wake()
            wait_for(lambda: client.llen("preftune:train") > 0, "the message to wait", 5)
        worker.send(signal.SIGTERM)  # with messages waiting: none of them may hold the worker
        assert worker.wait() == 0
    assert view(woken, job_id).status.value == "queued"


def test_garbage_from_the_broker_harms_nothing(backend: Backend, server: RedisServer, tmp_path: Path) -> None:
    woken = with_broker(backend, server.url)
    client = redis.Redis(port=server.port)
    body = {"content-type": "application/x-python-serialize", "content-encoding": "binary", "headers": {}}
    properties = {"delivery_info": {"exchange": "", "routing_key": "train"}, "delivery_tag": "1"}
    pickled = body | {"body": "gASVAAAAAAAAAAB9lC4=", "properties": properties | {"body_encoding": "base64"}}
    unknown = pickled | {
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "body": "W1tdLCB7fSwge31d",
        "headers": {"task": "os.system", "id": "1"},
    }
    with WorkerProcess(woken, tmp_path / "worker.log", **NEVER_POLLS) as worker:
        wait_until_listening(worker)
        for message in (pickled, unknown):
            client.lpush("preftune:train", json.dumps(message))
        wait_for(lambda: client.llen("preftune:train") == 0, "the garbage to be taken")
        job_id = submit_toy(woken, Script())
        wait_for_status(woken, job_id, "succeeded", "failed")
        assert worker.is_running


def test_jobs_start_after_redis_was_killed_with_all_it_knew(backend: Backend, tmp_path: Path) -> None:
    with run_redis() as server:
        woken = with_broker(backend, server.url)
        with WorkerProcess(woken, tmp_path / "worker.log", poll_seconds=0.5) as worker:
            wait_until_listening(worker)
            server.process.kill()
            server.process.wait()
            first = submit_toy(woken, Script())
            wait_for_status(woken, first, "succeeded", "failed")
            with run_redis(server.port):
                second = submit_toy(woken, Script(steps=3), reuse=False)
                wait_for_status(woken, second, "succeeded", "failed")
                assert worker.is_running


def test_a_worker_stops_although_redis_does_not_answer(backend: Backend, server: RedisServer, tmp_path: Path) -> None:
    woken = with_broker(backend, server.url)
    with WorkerProcess(woken, tmp_path / "worker.log", poll_seconds=0.3) as worker:
        wait_until_listening(worker)
        os.kill(server.process.pid, signal.SIGSTOP)
        try:
            job_id = submit_toy(woken, SLOW)
            wait_for_step(woken, job_id, "sft", 3)
            start = time.monotonic()
            worker.send(signal.SIGTERM)
            assert worker.wait() == 0
            assert time.monotonic() - start < 15
        finally:
            os.kill(server.process.pid, signal.SIGCONT)
    assert view(woken, job_id).status.value == "queued"
