"""Downloads against a real server that breaks off, lies, or points outside the folder."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from preftune import DownloadFailed
from preftune.downloads import download_files
from preftune.transport import Transport

CONTENT = bytes(range(256)) * 4096


class CutOffServer(ThreadingHTTPServer):
    """Serves CONTENT with ranges, and closes the connection early for the first `cuts` requests."""

    daemon_threads = True
    cuts = 0
    requests_seen: list[str]


class Handler(BaseHTTPRequestHandler):
    server: CutOffServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        wanted = self.headers.get("Range", "bytes=0-")
        self.server.requests_seen.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        if self.server.cuts:
            self.server.cuts -= 1
            self.wfile.write(CONTENT[start : start + 100_000])
            self.wfile.flush()
            self.connection.close()
            self.close_connection = True
            return
        self.wfile.write(CONTENT[start:])

    def log_message(self, format: str, *args: Any) -> None:
        return


@pytest.fixture
def server() -> Iterator[CutOffServer]:
    server = CutOffServer(("127.0.0.1", 0), Handler)
    server.requests_seen = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def transport(server: CutOffServer) -> Iterator[Transport]:
    transport = Transport(f"http://127.0.0.1:{server.server_address[1]}", None, 10)
    yield transport
    transport.close()


def entry(path: str = "model.safetensors", content: bytes = CONTENT) -> dict[str, Any]:
    digest = hashlib.sha256(content).hexdigest()
    return {"path": path, "num_bytes": len(content), "sha256": digest, "url": "/file"}


def test_a_download_cut_off_five_times_ends_byte_identical(
    server: CutOffServer, transport: Transport, tmp_path: Path
) -> None:
    server.cuts = 5
    told: list[int] = []
    download_files(transport, [entry("sub/model.safetensors")], tmp_path, told.append)
    assert (tmp_path / "sub" / "model.safetensors").read_bytes() == CONTENT
    assert len(server.requests_seen) == 6
    assert sum(told) == len(CONTENT)
    assert not list(tmp_path.rglob("*.part"))


def test_a_second_call_fetches_nothing(server: CutOffServer, transport: Transport, tmp_path: Path) -> None:
    download_files(transport, [entry()], tmp_path, None)
    seen = len(server.requests_seen)
    download_files(transport, [entry()], tmp_path, None)
    assert len(server.requests_seen) == seen


def test_a_corrupted_object_is_refused(server: CutOffServer, transport: Transport, tmp_path: Path) -> None:
    lie = entry() | {"sha256": "0" * 64}
    with pytest.raises(DownloadFailed, match="SHA-256"):
        download_files(transport, [lie], tmp_path, None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["../evil", "/etc/evil", "a/../../evil", ""])
def test_no_file_lands_outside_the_folder(transport: Transport, tmp_path: Path, path: str) -> None:
    with pytest.raises(DownloadFailed, match="outside"):
        download_files(transport, [entry(path)], tmp_path / "in", None)
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == []
