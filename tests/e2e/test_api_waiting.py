"""Those who wait, and a store or clients that say nothing, hold up nobody else."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from api_server import RunningApi, pairs, serve
from backends import claim, publication

from core.services.attempts import lifecycle
from core.services.requests import exports, scores

NUM_READERS = 45
"""More than the threads of the default pool."""


@pytest.fixture
def own(tmp_path: Path) -> Iterator[RunningApi]:
    with serve(tmp_path) as running:
        yield running


def finished_job(api: RunningApi) -> str:
    job = api.submit(sft="skip")
    held = claim(api.backend)
    lifecycle.finish_succeeded(held, publication(api.backend, held))
    return str(job["id"])


@contextmanager
def readers(url: str, paths: list[str], timeout: float = 30) -> Iterator[list[int]]:
    """All paths asked for at the same time; the statuses, once they have been left."""
    statuses: list[int] = []

    async def ask_all() -> None:
        async with httpx.AsyncClient(base_url=url, timeout=timeout, limits=httpx.Limits(max_connections=None)) as http:
            answers = await asyncio.gather(*(http.get(path) for path in paths), return_exceptions=True)
            statuses.extend(answer.status_code if isinstance(answer, httpx.Response) else 0 for answer in answers)

    thread = threading.Thread(target=lambda: asyncio.run(ask_all()))
    thread.start()
    time.sleep(0.5)
    try:
        yield statuses
    finally:
        thread.join()


def seconds_of(api: RunningApi, path: str) -> float:
    started = time.monotonic()
    assert api.http.get(path).status_code == 200
    return time.monotonic() - started


def test_waiting_for_scores_takes_no_thread(own: RunningApi) -> None:
    job_id = finished_job(own)
    score = own.http.post(f"/jobs/{job_id}/scores", json={"items": [{"prompt": "p", "response": "r"}]}).json()
    looks: list[int] = []
    get, lock = scores.get, threading.Lock()

    def counted(*args: str) -> object:
        with lock:
            looks.append(1)
        return get(*args)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scores, "get", counted)
        with readers(own.url, [f"/jobs/{job_id}/scores/{score['id']}?wait=8"] * NUM_READERS) as statuses:
            slowest = max(seconds_of(own, path) for path in ("/jobs", "/datasets", "/health/live") for _ in range(3))
            assert slowest < 4.0
    assert statuses == [200] * NUM_READERS
    assert len(looks) < 4 * NUM_READERS, "they share their looks"


def test_one_key_cannot_wait_for_everything(own: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own.shares.waiting, "most_of_one", 3)
    job_id = finished_job(own)
    view = own.http.post(f"/jobs/{job_id}/scores", json={"items": [{"prompt": "p", "response": "r"}]}).json()
    with readers(own.url, [f"/jobs/{job_id}/scores/{view['id']}?wait=6"] * 5) as statuses:
        pass
    assert sorted(statuses) == [200, 200, 200, 429, 429]


def test_a_request_with_wait_is_answered_once_for_its_key(own: RunningApi) -> None:
    job_id = finished_job(own)
    named = {"json": {"items": [{"prompt": "p", "response": "r"}]}, "headers": {"Idempotency-Key": "k"}}
    first = own.http.post(f"/jobs/{job_id}/scores?wait=0.5", **named)  # type: ignore[arg-type]
    again = own.http.post(f"/jobs/{job_id}/scores?wait=0.5", **named)  # type: ignore[arg-type]
    assert (first.status_code, first.json()) == (202, again.json())
    assert again.headers["idempotent-replayed"] == "true"
    refused = own.http.post("/jobs/job_none/scores?wait=0.5", **named)  # type: ignore[arg-type]
    assert refused.status_code in (404, 422)
    assert exports.MAX_WAITING


def test_liveness_answers_while_every_thread_waits(own: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store says nothing, and those without a key ask for readiness all the time."""
    dataset_id = own.http.post("/datasets", content=pairs()).json()["id"]
    silence = threading.Event()
    monkeypatch.setattr(own.backend.store, "check", lambda: silence.wait(20))
    monkeypatch.setattr(own.backend.store, "read", lambda *_: iter([b""]) if silence.wait(20) else iter([]))
    paths = ["/health/ready"] * NUM_READERS + [f"/datasets/{dataset_id}/rows"] * NUM_READERS
    with readers(own.url, paths) as statuses:
        try:
            slowest = max(seconds_of(own, path) for path in ("/health/live", "/jobs", "/datasets") for _ in range(3))
            assert slowest < 4.0
            started = time.monotonic()
            assert own.http.get("/health/ready").status_code == 503
            assert time.monotonic() - started < 8.0
        finally:
            silence.set()
    assert set(statuses[:1]) <= {200, 500, 503}


def test_a_download_nobody_reads_is_cut_off(own: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.downloads.SEND_SECONDS", 0.3)
    dataset_id = own.http.post("/datasets", content=pairs(3) + b"\n" * (12 << 20)).json()["id"]
    address = own.url.removeprefix("http://").split(":")
    closed: list[int] = []
    read = own.backend.store.read

    def watched(*args: str) -> Iterator[bytes]:
        try:
            yield from read(*args)  # type: ignore[arg-type]
        finally:
            closed.append(1)

    monkeypatch.setattr(own.backend.store, "read", watched)
    with socket.create_connection((address[0], int(address[1]))) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(f"GET /datasets/{dataset_id}/content HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        deadline = time.monotonic() + 10
        while not closed and time.monotonic() < deadline:
            time.sleep(0.05)
        assert closed, "its file is closed although nobody reads"
