"""`preftune doctor --url`: a direct way has no fault, whatever is not the service is told; proxies: tests/deploy."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from api_server import RunningApi
from typer.testing import CliRunner

from cli.main import app
from core.services.operations.diagnosis import CheckFinding
from core.services.operations.way_in import check_way_in

LIMIT = 5 * 1024**3


def findings(url: str) -> dict[str, CheckFinding]:
    return {finding.name: finding for finding in check_way_in(url, LIMIT)}


@contextmanager
def stranger(answer: bytes) -> Iterator[str]:
    """Run a server that says the same to everybody."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def test_a_direct_way_has_no_fault(api: RunningApi) -> None:
    assert {name: finding.state for name, finding in findings(api.url).items()} == {
        "address": "ok",
        "streams": "ok",
        "uploads": "ok",
    }
    below = findings(f"{api.url}/preftune")
    assert (below["address"].state, "404" in below["address"].detail) == ("failed", True)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 502 Bad Gateway\r\nServer: nginx\r\nContent-Length: 0\r\n\r\n", "something else answers 502"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "BadStatusLine"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nhello\n", "without events"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: []\n", "without its facts"),
    ],
)
def test_what_is_not_the_service_is_told(answer: bytes, words: str) -> None:
    with stranger(answer) as url:
        found = findings(url)
    assert found.keys() == {"address"}
    assert found["address"].state == "failed"
    assert words in found["address"].detail


def test_no_address_and_nobody_there() -> None:
    assert "is no address" in findings("tune.example.org")["address"].detail
    assert "refused" in findings("http://127.0.0.1:1")["address"].detail


def test_the_command_adds_the_way_in(api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFTUNE_DATA_DIR", str(api.settings.data_dir))
    monkeypatch.setenv("PREFTUNE_MODELS_DIR", str(api.settings.models_dir))
    monkeypatch.setenv("PREFTUNE_DEVICE", "cpu")
    result = CliRunner().invoke(app, ["doctor", "--url", api.url])
    assert [line.split()[:2] for line in result.stdout.splitlines() if line.startswith(("address", "streams"))] == [
        ["address", "ok"],
        ["streams", "ok"],
    ]
