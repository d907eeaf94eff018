"""Tar streams of one folder, unpacked as they arrive and verified by the `SHA256SUMS` among their files."""

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import httpx

from preftune.downloads import CHUNK_BYTES, Progress, report, safe_path, sha256_of
from preftune.errors import ConnectionFailed, DownloadFailed
from preftune.transport import Transport, problem_of

SUMS_FILE = "SHA256SUMS"


def download_archive(transport: Transport, url: str, directory: Path, on_progress: Progress) -> Path:
    """Unpack the stream's one folder as `directory`. Raises ApiError, ConnectionFailed, DownloadFailed."""
    try:
        with transport.http.stream("GET", url, timeout=60) as response:
            if response.status_code >= 400:
                response.read()
                problem = problem_of(response)
                assert problem is not None
                raise problem
            _unpack(_Stream(response.iter_bytes(CHUNK_BYTES), on_progress), directory)
    except httpx.TransportError as error:
        raise ConnectionFailed(f"the connection broke off ({type(error).__name__}); call again") from error
    except tarfile.TarError as error:
        raise DownloadFailed(f"the archive is damaged: {error}") from error
    _verify(directory)
    return directory


class _Stream(io.RawIOBase):
    """File interface over chunks, for tarfile."""

    def __init__(self, chunks: Iterator[bytes], on_progress: Progress) -> None:
        self._chunks = chunks
        self._on_progress = on_progress
        self._rest = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while len(self._rest) < size:
            chunk = next(self._chunks, b"")
            if not chunk:
                break
            report(self._on_progress, len(chunk))
            self._rest += chunk
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken


def _unpack(stream: _Stream, directory: Path) -> None:
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            content = archive.extractfile(member)
            if content is None:
                raise DownloadFailed(f"the archive holds something that is no file: {member.name!r}")
            target = directory / safe_path(member.name.partition("/")[2])
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as out:
                while chunk := content.read(CHUNK_BYTES):
                    out.write(chunk)


def _verify(directory: Path) -> None:
    sums = directory / SUMS_FILE
    if not sums.is_file():
        raise DownloadFailed(f"the archive has no {SUMS_FILE}")
    for line in sums.read_text(encoding="utf-8").splitlines():
        digest, _, path = line.partition("  ")
        target = directory / safe_path(path)
        if not target.is_file() or sha256_of(target) != digest:
            raise DownloadFailed(f"{path}: SHA-256 differs from the service's")
