"""`rediss://` trusts only certificates of a known authority, and the reason of a refusal is told."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from servers import free_port, run_redis

from core.domain.errors import Unavailable
from core.outages import reason_of
from core.queue.celery_wake_queue import open_queue
from core.settings import load_settings

needs_programs = pytest.mark.skipif(
    not (shutil.which("redis-server") and shutil.which("openssl")), reason="needs redis-server and openssl"
)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """A server with a certificate of its own making, which names localhost."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key, port = folder / "ca.pem", folder / "key.pem", free_port()
    options = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    subprocess.run(["openssl", *options.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    options = f"--port 0 --tls-port {port} --tls-auth-clients no --save '' --bind 127.0.0.1"
    command = [
        "redis-server",
        *options.replace("''", "").split(),
        "--tls-cert-file",
        certificate,
        "--tls-key-file",
        key,
    ]
    process = subprocess.Popen([*command, "--dir", folder], stdout=subprocess.DEVNULL)
    time.sleep(1.0)
    try:
        yield port, certificate
    finally:
        process.terminate()
        process.wait(10)


def fault(tmp_path: Path, url: str) -> str | None:
    try:
        open_queue(load_settings(data_dir=tmp_path, broker_url=url)).check()
    except Unavailable as error:
        return reason_of(error.__cause__ or error)
    return None


@needs_programs
def test_certificates_are_verified(tls: tuple[int, Path], tmp_path: Path) -> None:
    port, certificate = tls
    assert "certificate verify failed" in (fault(tmp_path, f"rediss://localhost:{port}/0") or "").lower()
    assert fault(tmp_path, f"rediss://localhost:{port}/0?ssl_ca_certs={certificate}") is None
    assert fault(tmp_path, f"rediss://localhost:{port}/0?ssl_cert_reqs=none") is None
    assert fault(tmp_path, f"redis://localhost:{port}/0"), "TLS spoken to in clear"


@needs_programs
def test_the_reason_of_a_refusal_is_told(tmp_path: Path) -> None:
    with run_redis() as server:
        redis.Redis(port=server.port).config_set("requirepass", "right")
        told = fault(tmp_path, f"redis://:canary-password@127.0.0.1:{server.port}/0") or ""
        assert "invalid username-password" in told
        assert "canary-password" not in told
        assert "authenticat" in (fault(tmp_path, f"redis://127.0.0.1:{server.port}/0") or "").lower()
        redis.Redis(port=server.port, password="right").config_set("requirepass", "")
        assert "out of range" in (fault(tmp_path, f"redis://127.0.0.1:{server.port}/99") or "")
        redis.Redis(port=server.port).config_set("maxmemory", "1")
        assert "maxmemory" in (fault(tmp_path, f"redis://127.0.0.1:{server.port}/0") or ""), "answers and takes nothing"
    assert "refused" in (fault(tmp_path, f"redis://127.0.0.1:{free_port()}/0") or "")
