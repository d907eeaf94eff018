"""Downloads that resume where they stopped and are verified at the end."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import httpx

from preftune.errors import ConnectionFailed, DownloadFailed
from preftune.transport import Transport, problem_of

MAX_ATTEMPTS = 8
CHUNK_BYTES = 1024 * 1024
Progress = Callable[[int], None] | None


def download_files(transport: Transport, files: list[dict[str, Any]], directory: Path, on_progress: Progress) -> Path:
    """Fetch each file of a manifest below `directory`; files already there with the right SHA-256 are kept."""
    directory.mkdir(parents=True, exist_ok=True)
    for file in files:
        target = directory / safe_path(file["path"])
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and sha256_of(target) == file["sha256"]:
            report(on_progress, file["num_bytes"])
            continue
        _fetch(transport, file, target, on_progress)
    return directory


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def safe_path(path: str) -> Path:
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or not pure.parts:
        raise DownloadFailed(f"the service named a file outside the folder: {path!r}")
    return Path(*pure.parts)


def _fetch(transport: Transport, file: dict[str, Any], target: Path, on_progress: Progress) -> None:
    partial = target.with_name(target.name + ".part")
    start = partial.stat().st_size if partial.exists() else 0
    report(on_progress, start)
    for _ in range(MAX_ATTEMPTS):
        if start < file["num_bytes"]:
            _append(transport, transport.below_base(file["url"]), partial, on_progress)
        start = partial.stat().st_size if partial.exists() else 0
        if start >= file["num_bytes"]:
            break
    else:
        raise ConnectionFailed(f"{file['path']}: the connection broke off {MAX_ATTEMPTS} times; call again to continue")
    if file["num_bytes"] == 0:
        partial.touch()
    if sha256_of(partial) != file["sha256"]:
        partial.unlink()
        raise DownloadFailed(f"{file['path']}: SHA-256 differs from the service's; the partial file was removed")
    os.replace(partial, target)


def _append(transport: Transport, url: str, partial: Path, on_progress: Progress) -> None:
    start = partial.stat().st_size if partial.exists() else 0
    headers = {"Range": f"bytes={start}-"} if start else {}
    try:
        with transport.http.stream("GET", url, headers=headers, timeout=60) as response:
            if response.status_code >= 400:
                response.read()
                problem = problem_of(response)
                assert problem is not None
                raise problem
            mode = "ab" if response.status_code == 206 else "wb"
            with partial.open(mode) as out:
                for chunk in response.iter_bytes(CHUNK_BYTES):
                    out.write(chunk)
                    report(on_progress, len(chunk))
    except httpx.TransportError:
        return


def report(on_progress: Progress, num_bytes: int) -> None:
    if on_progress and num_bytes:
        on_progress(num_bytes)
