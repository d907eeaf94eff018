"""Shares: one key or address takes no more than its part, and health is answered whatever the others hold open."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from api_server import RunningApi, pairs, serve

from core.domain.access import Scope
from core.services.access import api_keys, projects

NUM_IDLE = 1000
HEALTH_SECONDS = 4.0
"""Less than the time-out of a health check, on a busy machine."""


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[RunningApi]:
    with serve(tmp_path, trusted_proxies="127.0.0.1") as api:
        projects.create(api.backend, "other")
        yield api


def headers(api: RunningApi, project_id: str = "default", address: str = "203.0.113.1") -> dict[str, str]:
    token = api_keys.create(api.backend, project_id, "k", Scope.OPERATOR).token
    return {"Authorization": f"Bearer {token}", "X-Forwarded-For": address}


@contextmanager
def streams(api: RunningApi, job_id: str, number: int, who: dict[str, str]) -> Iterator[None]:
    with ExitStack() as stack:
        http = stack.enter_context(httpx.Client(base_url=api.url, limits=httpx.Limits(max_connections=None)))
        before = api.shares.streams.num_held
        for _ in range(number):
            answer = stack.enter_context(http.stream("GET", f"/jobs/{job_id}/stream", headers=who))
            assert answer.status_code == 200
        wait_for(lambda: api.shares.streams.num_held == before + number, "all streams")
        yield


def test_one_key_cannot_take_all_streams(own: RunningApi) -> None:
    """The review's probe: one reader's streams, and another project's own."""
    own.shares.streams.most, own.shares.streams.most_of_one = 20, 5
    mine, theirs = headers(own), headers(own, "other", "203.0.113.2")
    own.http.headers.update(mine)
    job_id = str(own.submit()["id"])
    with streams(own, job_id, 5, mine):
        refused = own.http.get(f"/jobs/{job_id}/stream", headers=mine)
        assert (refused.status_code, refused.json()["code"]) == (429, "too-many-streams")
        assert int(refused.headers["retry-after"]) > 0
        assert "with this key" in refused.json()["detail"]
        same_address = headers(own, address="203.0.113.1")
        assert "from this address" in own.http.get(f"/jobs/{job_id}/stream", headers=same_address).json()["detail"]
        with own.http.stream("GET", f"/jobs/{job_id}/stream", headers=headers(own, address="203.0.113.3")) as another:
            assert another.status_code == 200, "others have their own share"
        assert own.http.get("/jobs", headers=theirs).status_code == 200
    wait_for(lambda: own.shares.streams.num_held == 0, "the end of all streams")
    with streams(own, job_id, 5, mine):
        pass


def test_all_together_are_bounded_too(own: RunningApi) -> None:
    own.shares.streams.most = 2
    own.http.headers.update(headers(own))
    job_id = str(own.submit()["id"])
    with streams(own, job_id, 2, headers(own, address="203.0.113.7")):
        refused = own.http.get(f"/jobs/{job_id}/stream", headers=headers(own, address="203.0.113.8"))
        assert (refused.status_code, refused.json()["code"]) == (429, "too-many-streams")
        assert "all this process serves" in refused.json()["detail"]


def test_downloads_are_shared(own: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    own.shares.downloads.most_of_one = 2
    mine, theirs = headers(own), headers(own, address="203.0.113.2")
    dataset_id = own.http.post("/datasets", content=pairs(), headers=mine).json()["id"]
    go_on = threading.Event()
    read = type(own.backend.store).read

    def slowly(store: object, key: str, *ranges: int | None) -> Iterator[bytes]:
        for chunk in read(store, key, *ranges):  # type: ignore[arg-type]
            yield chunk[:10]
            go_on.wait(10)
            yield chunk[10:]

    monkeypatch.setattr(type(own.backend.store), "read", slowly)
    path = f"/datasets/{dataset_id}/content"
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(own.http.stream("GET", path, headers=mine))
        wait_for(lambda: own.shares.downloads.num_held == 2, "two downloads")
        refused = own.http.get(path, headers=mine)
        assert (refused.status_code, refused.json()["code"]) == (429, "too-many-downloads")
        go_on.set()
        assert own.http.get(path, headers=theirs).content == pairs()
    wait_for(lambda: own.shares.downloads.num_held == 0, "the end of the downloads")


def test_requests_in_work_are_shared(own: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    own.shares.requests.most_of_one = 3
    mine, theirs = headers(own), headers(own, "other", "203.0.113.2")
    go_on = threading.Event()
    monkeypatch.setattr("core.services.jobs.jobs.list_page", lambda *_, **__: go_on.wait(10))
    with httpx.Client(base_url=own.url, headers=mine, timeout=20) as http:
        threads = [threading.Thread(target=http.get, args=("/jobs",)) for _ in range(3)]
        for thread in threads:
            thread.start()
        wait_for(lambda: own.shares.requests.num_held == 3, "three requests")
        refused = own.http.get("/variants", headers=mine)
        assert (refused.status_code, refused.json()["code"]) == (429, "too-many-requests")
        assert own.http.get("/variants", headers=theirs).status_code == 200
        assert own.http.get("/health/live", headers=mine).status_code == 200
        go_on.set()
        for thread in threads:
            thread.join()


@contextmanager
def idle_connections(api: RunningApi, number: int) -> Iterator[list[socket.socket]]:
    parts = urlsplit(api.url)
    with ExitStack() as stack:
        yield [
            stack.enter_context(socket.create_connection((str(parts.hostname), int(parts.port or 0)), timeout=10))
            for _ in range(number)
        ]


def seconds_of(api: RunningApi, path: str) -> float:
    started = time.monotonic()
    answer = httpx.get(api.url + path, headers=api.http.headers, timeout=10)
    assert answer.status_code == 200, answer.text
    return time.monotonic() - started


def is_open(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def test_health_is_answered_with_a_thousand_idle_connections(own: RunningApi) -> None:
    """All of them behind one trusted proxy, so that none is over the share of an address."""
    with idle_connections(own, NUM_IDLE) as idle:
        assert seconds_of(own, "/health/live") < HEALTH_SECONDS
        assert seconds_of(own, "/health/ready") < HEALTH_SECONDS
        assert sum(map(is_open, idle)) >= NUM_IDLE - 10


def test_idle_connections_of_one_address_are_closed_over_its_share(tmp_path: Path) -> None:
    with serve(tmp_path) as api, idle_connections(api, 400) as idle:
        assert seconds_of(api, "/health/live") < HEALTH_SECONDS
        assert seconds_of(api, "/jobs") < HEALTH_SECONDS
        wait_for(lambda: sum(map(is_open, idle)) <= 250, "the share of an address")
        assert is_open(idle[-1]), "the newest stay"
