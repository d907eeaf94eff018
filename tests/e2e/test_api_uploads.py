"""Uploads that go wrong: too large, too slow, broken off, killed. Nothing of them is left."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from api_server import RunningApi, pairs, serve

MAX_BYTES = 1_000_000
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    """A server that takes small files only."""
    with serve(Path(tmp_path_factory.mktemp("small")), max_upload_bytes=MAX_BYTES) as running:
        yield running


def spooled(api: RunningApi) -> list[Path]:
    return sorted(api.settings.scratch_dir.rglob("upload-*"))


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120  # on a busy machine
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def begin_upload(port: int, num_bytes: int, sent: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    head = f"POST /datasets HTTP/1.1\r\nHost: localhost\r\nContent-Length: {num_bytes}\r\n\r\n"
    connection.sendall(head.encode() + sent)
    return connection


def port_of(api: RunningApi) -> int:
    return int(api.url.rpartition(":")[2])


def test_a_file_over_the_limit_is_refused_while_it_streams(small: RunningApi) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(64):
            yield bytes(100_000)

    response = small.http.post("/datasets", content=endless())
    assert response.status_code == 413
    assert response.json()["code"] in ("upload-too-large", "body-too-large")
    form = small.http.post("/datasets", files={"file": ("a.jsonl", bytes(MAX_BYTES + 1))})
    assert (form.status_code, form.json()["code"]) == (413, "upload-too-large")
    wait_until(lambda: spooled(small) == [])
    assert small.http.get("/datasets").json()["data"] == []


def test_a_declared_length_over_the_limit_is_refused_at_once(small: RunningApi) -> None:
    with begin_upload(port_of(small), 10 * 1024**3, b"") as connection:
        answer = b""
        while b"body-too-large" not in answer:
            part = connection.recv(10_000)
            assert part
            answer += part
    assert answer.startswith(b"HTTP/1.1 413")


def test_bodies_of_other_addresses_stay_small(api: RunningApi) -> None:
    body = b'{"name": "' + b"x" * 1024 * 1024 + b'"}'
    declared = api.http.post("/jobs", content=body, headers={"Content-Type": "application/json"})
    streamed = api.http.post("/jobs", content=iter([body]), headers={"Content-Type": "application/json"})
    for response in (declared, streamed):
        assert (response.status_code, response.json()["code"]) == (413, "body-too-large")


def test_an_upload_broken_off_leaves_nothing(api: RunningApi) -> None:
    before = api.http.get("/datasets").json()
    with begin_upload(port_of(api), 2_000_000, bytes(1_500_000)):
        wait_until(lambda: any(path.stat().st_size > 0 for path in spooled(api)))
        (path,) = spooled(api)
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
    wait_until(lambda: spooled(api) == [])
    assert api.http.get("/datasets").json() == before


def test_a_form_cut_short_leaves_nothing(api: RunningApi) -> None:
    cut = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + bytes(700_000)
    response = api.http.post("/datasets", content=cut, headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert response.status_code == 400
    assert spooled(api) == []


def test_a_form_of_many_parts_is_refused(api: RunningApi) -> None:
    files: list[tuple[str, tuple[None, bytes]]] = [(f"f{n}", (None, b"x")) for n in range(10_000)]
    response = api.http.post("/datasets", files=files)
    assert (response.status_code, response.json()["code"]) == (400, "malformed-upload")
    large = api.http.post("/datasets", files=[("name", (None, b"x" * 100_000)), ("file", ("a", pairs()))])
    assert large.status_code == 422


def test_the_next_start_removes_what_a_killed_process_left(tmp_path: Path) -> None:
    code = (
        "import sys; from api.server import run; from core.settings import Settings; from pathlib import Path; "
        "run(Settings(data_dir=Path(sys.argv[1]), port=int(sys.argv[2]), broker_url='none'))"
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", code, str(tmp_path / "data"), str(port)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: _is_up(port))
        scratch = tmp_path / "data" / "scratch"
        with begin_upload(port, 2_000_000, bytes(1_500_000)):
            wait_until(lambda: any(path.stat().st_size > 0 for path in scratch.rglob("upload-*")))
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        assert list(scratch.rglob("upload-*"))
    finally:
        process.kill()
        process.wait()
    with serve(tmp_path) as running:
        assert spooled(running) == []
        assert running.http.get("/datasets").json()["data"] == []
        assert len(list(scratch.glob("uploads-*"))) == 1  # its own
    assert list(scratch.iterdir()) == []


def _is_up(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health/live").status_code == 200
    except httpx.TransportError:
        return False
