"""`rediss://` trusts only certificates of a known authority, and the reason of a refusal is told."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import free_port

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
    assert fault(tmp_path, f"rediss://localhost:{port}/0"), "of an unknown authority"
    assert fault(tmp_path, f"rediss://localhost:{port}/0?ssl_ca_certs={certificate}") is None
    assert fault(tmp_path, f"rediss://localhost:{port}/0?ssl_cert_reqs=none") is None
    assert fault(tmp_path, f"redis://localhost:{port}/0"), "TLS spoken to in clear"
