"""Real programs out of package registries, started on free ports of loopback and ended afterwards."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (
    ROOT / ".venv-deploy" / "bin",
    ROOT / ".venv" / "bin",
    Path("/usr/sbin"),
    Path("/usr/bin"),
    Path("/usr/local/bin"),
)
START_SECONDS = 60


def find(name: str) -> str:
    """Return where a program is; skips the test where it is not."""
    path = shutil.which(name, path=os.pathsep.join([*map(str, FOLDERS), os.environ.get("PATH", "")]))
    if path is None:
        pytest.skip(f"{name} is not installed (`make test-deploy` installs what PyPI has; Debian has the others)")
    return path


@contextmanager
def started(
    command: Sequence[str | Path],
    port: int,
    folder: Path,
    environment: dict[str, str] | None = None,
    *,
    never_root: bool = False,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program until the end of the context; yields once it listens. Its output is kept in the folder."""
    log = folder / "output"
    with log.open("wb") as output:
        process = subprocess.Popen(
            list(map(str, command)),
            cwd=folder,
            env=os.environ | (environment or {}),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            user="nobody" if never_root and os.geteuid() == 0 else None,
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"{command[0]} does not listen on {port}: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def open_folder(prefix: str) -> Iterator[Path]:
    """Make a folder that programs of other users may enter, removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix=f"preftune-{prefix}-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate of its own making for localhost and 127.0.0.1; returns it and its key."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    options = f"req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext {names}"
    command = [find("openssl"), *options.split(), "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    key.chmod(0o644)  # of a test; HAProxy and Redis read it as users of their own
    return certificate, key


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
