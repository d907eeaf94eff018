"""Quotas and the disk reserve over HTTP: what is over them is refused before it is read, and told by what is taken."""

import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from api_server import RunningApi, pairs, serve

from core.services.access import disk_reserve, projects
from core.services.access.projects import Limits

MB = 1_000_000


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    with serve(Path(tmp_path_factory.mktemp("limited"))) as api:
        projects.set_limits(api.backend, "default", Limits(max_stored_bytes=MB))
        yield api


def spooled_bytes(api: RunningApi) -> int:
    return sum(path.stat().st_size for path in api.settings.scratch_dir.rglob("upload-*"))


def send_head(api: RunningApi, head: str, sent: bytes = b"") -> socket.socket:
    """A request of which nothing but the head, and `sent`, is sent."""
    parts = urlsplit(api.url)
    connection = socket.create_connection((str(parts.hostname), int(parts.port or 0)), timeout=20)
    connection.sendall(f"POST /datasets HTTP/1.1\r\nHost: {parts.netloc}\r\n{head}\r\n\r\n".encode() + sent)
    return connection


def test_a_body_over_the_quota_is_refused_unread(limited: RunningApi) -> None:
    """The review's probe: 60 MB into a project of 1 MB; not one byte of them is asked for."""
    with send_head(limited, f"Content-Length: {60 * MB}") as connection:
        answer = b""
        while b"}" not in answer:
            answer += connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 413")
        assert b'"code":"storage-quota-exceeded"' in answer
        assert b"1,000,000 bytes" in answer
        assert spooled_bytes(limited) == 0


def test_a_body_without_a_length_ends_where_the_room_ends(limited: RunningApi) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(200):
            yield b"x" * 100_000

    answer = limited.http.post("/datasets", content=endless())
    assert (answer.status_code, answer.json()["code"]) == (413, "storage-quota-exceeded")
    assert answer.json()["stored_bytes"] <= MB
    usage = limited.http.get("/usage").json()
    assert usage["stored"]["arriving"] == 0, "its room is given back"


def test_two_bodies_at_once_share_what_is_left(limited: RunningApi) -> None:
    """The first holds its room with its head alone; the second is refused, and is let in once the first is gone."""
    with send_head(limited, f"Content-Length: {700_000}", b"x" * 1000):
        wait_until_arriving(limited, 700_000)
        refused = limited.http.post("/datasets", content=b"y" * 600_000)
        assert (refused.status_code, refused.json()["stored"]["arriving"]) == (413, 700_000)
    wait_until_arriving(limited, 0)
    assert limited.http.post("/datasets", content=b"y" * 600_000).json()["code"] == "dataset-rejected"


def test_a_request_that_was_answered_is_answered_again_in_a_full_project(limited: RunningApi) -> None:
    headers = {"Idempotency-Key": "once"}
    first = limited.http.post("/datasets", content=pairs(), headers=headers)
    assert first.status_code == 201
    usage = limited.http.get("/usage").json()
    projects.set_limits(limited.backend, "default", Limits(max_stored_bytes=usage["stored_bytes"]))
    again = limited.http.post("/datasets", content=pairs(), headers=headers)
    assert (again.status_code, again.json()["id"]) == (201, first.json()["id"])
    assert limited.http.post("/datasets", content=pairs()).status_code == 413
    projects.set_limits(limited.backend, "default", Limits(max_stored_bytes=MB))


def test_a_repetition_of_openais_clients_gets_the_first_answer_in_a_full_project(limited: RunningApi) -> None:
    """They send no key; the first file takes the room that the repetition would need."""
    form = {"files": {"file": ("pairs.jsonl", pairs())}, "data": {"purpose": "fine-tune"}}
    first = limited.http.post("/v1/files", headers={"x-stainless-retry-count": "0"}, **form)
    assert first.status_code == 200, first.text
    usage = limited.http.get("/usage").json()
    projects.set_limits(limited.backend, "default", Limits(max_stored_bytes=usage["stored_bytes"]))
    again = limited.http.post("/v1/files", headers={"x-stainless-retry-count": "1"}, **form)
    assert again.status_code == 200, again.text
    assert (again.status_code, again.json()["id"]) == (200, first.json()["id"])
    other = {"files": {"file": ("pairs.jsonl", pairs() + pairs())}, "data": {"purpose": "fine-tune"}}
    for count in ("0", "1"):
        refused = limited.http.post("/v1/files", headers={"x-stainless-retry-count": count}, **other)
        assert refused.status_code == 413, "nothing to repeat: judged when it is recorded"
    projects.set_limits(limited.backend, "default", Limits(max_stored_bytes=MB))


def test_usage_says_what_is_taken_by_what(limited: RunningApi) -> None:
    upload = limited.http.post("/uploads", json={"num_bytes": 300_000, "filename": "x.jsonl"}).json()
    usage = limited.http.get("/usage").json()
    assert usage["stored"]["uploads"] == 300_000
    assert usage["stored_bytes"] == sum(usage["stored"].values())
    assert usage["largest"][0] == {"id": upload["id"], "num_bytes": 300_000}
    assert usage["limits"]["max_stored_bytes"] == MB
    assert {disk["what"] for disk in usage["disks"]} == {"data", "objects"}
    limited.http.delete(f"/uploads/{upload['id']}")


def test_below_the_reserve_uploads_and_jobs_are_refused(limited: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset_id = limited.dataset_id()
    job = {"base_model": "tiny", "dataset_id": dataset_id}
    monkeypatch.setattr(disk_reserve, "_free", lambda folder: limited.settings.disk_reserve_bytes - 1)
    for answer in (
        limited.http.post("/datasets", content=pairs()),
        limited.http.post("/uploads", json={"num_bytes": 10, "filename": "x.jsonl"}),
        limited.http.post("/jobs", json=job),
    ):
        assert (answer.status_code, answer.json()["code"]) == (507, "disk-reserve-reached")
        assert answer.json()["reserve_bytes"] == limited.settings.disk_reserve_bytes
    assert limited.http.post("/jobs/preview", json=job).status_code != 507
    assert limited.http.get("/jobs").status_code == 200


def wait_until_arriving(api: RunningApi, num_bytes: int) -> None:
    with httpx.Client(base_url=api.url, headers=api.http.headers) as watcher:
        for _ in range(2000):
            if watcher.get("/usage").json()["stored"]["arriving"] == num_bytes:
                return
    raise AssertionError(f"never {num_bytes} bytes arriving")
