"""Downloads: whole files, ranges of them, and folders as tar streams."""

import asyncio
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from urllib.parse import quote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from api.access.shares import holder_of, shares_of
from api.http.problems import RANGE_NOT_SATISFIABLE, HttpError
from api.http.strict_route import is_none_match
from api.threads import Lane, iterate_in
from core.domain.errors import DomainError
from core.services.views import Content

Read = Callable[[int, int | None], Iterator[bytes]]
"""Chunks of the bytes [start, end)."""
SEND_SECONDS = 30.0
"""One chunk of at most 1 MiB; a client that needs longer is cut off, and may go on by a range."""
MAX_CHUNK_BYTES = 1024 * 1024
ABORT = "abort_connection"
"""Key of `scope["state"]`: drops the connection with all that is not sent yet."""
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


class CutShort(Exception):
    """Raised when the store gave fewer bytes than promised: the answer is aborted, never padded."""


class MeteredStream(StreamingResponse):
    """Chunks read in threads of the store's lane. A client that reads nothing for a while is disconnected."""

    def __init__(self, content: Iterable[bytes], status_code: int, headers: Mapping[str, str], media_type: str) -> None:
        self._chunks = iter(content)
        super().__init__(iterate_in(Lane.STORE, self._chunks), status_code, headers, media_type)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            try:
                async with asyncio.timeout(SEND_SECONDS):
                    await send(message)
            except TimeoutError:
                scope["state"].get(ABORT, lambda: None)()
                raise ClientDisconnect from None

        try:
            with shares_of(scope).downloads.hold(holder_of(scope)):
                await super().__call__(scope, receive, send_in_time)
        finally:
            close = getattr(self._chunks, "close", None)
            if close is not None:
                close()


@dataclass(frozen=True, kw_only=True)
class Download:
    num_bytes: int
    sha256: str
    filename: str
    read: Read
    takes_ranges: bool = True


@dataclass(frozen=True, kw_only=True)
class TarMember:
    path: str
    num_bytes: int
    read: Read


def file_response(request: Request, download: Download) -> Response:
    """Respond with the file or range. The ETag is the file's SHA-256, so ranges of two versions never mix."""
    etag = f'"{download.sha256}"'
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes" if download.takes_ranges else "none",
        "Content-Disposition": attachment(download.filename),
    }
    if is_none_match(request, etag):
        return Response(status_code=304, headers=headers)
    wanted = _wanted_range(request, etag, download.num_bytes) if download.takes_ranges else None
    start, end = wanted or (0, download.num_bytes)
    headers["Content-Length"] = str(end - start)
    if wanted:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{download.num_bytes}"
    content = begun(exactly(download.read(start, end), end - start)) if end > start else iter(())
    return MeteredStream(content, 206 if wanted else 200, headers, "application/octet-stream")


def content_response(request: Request, content: Content) -> Response:
    """Respond with a stream that can be read once, from its beginning."""
    download = Download(
        num_bytes=content.num_bytes,
        sha256=content.sha256,
        filename=content.filename,
        read=lambda start, end: content.chunks,
        takes_ranges=False,
    )
    return file_response(request, download)


def tar_response(folder: str, members: Sequence[TarMember], modified_at: datetime) -> Response:
    """Respond with a tar stream of one folder, of known length. The same members give the same bytes."""
    heads = [_tar_head(f"{folder}/{member.path}", member.num_bytes, modified_at) for member in members]
    num_bytes = sum(len(head) + _padded(member.num_bytes) for head, member in zip(heads, members, strict=True))
    headers = {
        "Content-Length": str(num_bytes + 2 * tarfile.BLOCKSIZE),
        "Content-Disposition": attachment(f"{folder}.tar"),
    }
    return MeteredStream(begun(_tar_chunks(heads, members), 2), 200, headers, "application/x-tar")


def tar_stream_response(folder: str, files: Iterator[tuple[str, bytes]], modified_at: datetime) -> Response:
    """Respond with a tar stream of one folder whose files are made on the way, so that its length is not known."""
    headers = {"Content-Disposition": attachment(f"{folder}.tar")}
    return MeteredStream(begun(_made_tar(folder, files, modified_at)), 200, headers, "application/x-tar")


def stream_response(filename: str, chunks: Iterator[bytes], media_type: str) -> Response:
    """Respond with bytes that are made on the way, so that their length is not known."""
    headers = {"Content-Disposition": attachment(filename)}
    return MeteredStream(begun(_small(chunks)), 200, headers, media_type)


def begun(chunks: Iterator[bytes], num_chunks: int = 1) -> Iterator[bytes]:
    """Return the same chunks with the first ones read, so that a missing object can still set the status."""
    return _continued(list(islice(chunks, num_chunks)), chunks)


def exactly(chunks: Iterator[bytes], num_bytes: int) -> Iterator[bytes]:
    """Yield the same chunks. Raises CutShort when their bytes are fewer or more than promised."""
    sent = 0
    while sent < num_bytes:
        chunk = next(chunks, b"")
        if not chunk or sent + len(chunk) > num_bytes:
            raise CutShort(f"{sent + len(chunk)} bytes of {num_bytes}")
        sent += len(chunk)
        yield chunk


def _continued(first: list[bytes], chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the rest: it is too late for a problem document, so faults abort the answer."""
    try:
        yield from first
        yield from chunks
    except DomainError as error:
        raise CutShort(error.detail) from error


def attachment(filename: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", filename)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"


def _wanted_range(request: Request, etag: str, num_bytes: int) -> tuple[int, int] | None:
    """Return [start, end), or None for the whole file: also for several ranges, or one of another version."""
    header = request.headers.get("range")
    if header is None or request.headers.get("if-range", etag) != etag:
        return None
    found = _RANGE.fullmatch(header.replace(" ", ""))
    if found is None or found.groups() == ("", ""):
        return None
    first, last = found.groups()
    if not first:
        start, end = max(0, num_bytes - int(last)), num_bytes
    else:
        start, end = int(first), min(int(last) + 1, num_bytes) if last else num_bytes
    if last and first and int(last) < int(first):
        return None
    if start >= num_bytes or start >= end:
        headers = {"Content-Range": f"bytes */{num_bytes}"}
        raise HttpError(RANGE_NOT_SATISFIABLE, f"The file has {num_bytes:,} bytes.", headers=headers)
    return start, end


def _tar_head(name: str, num_bytes: int, modified_at: datetime) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = num_bytes
    info.mtime = int(modified_at.timestamp())
    info.mode = 0o644
    return info.tobuf(tarfile.PAX_FORMAT)


def _made_tar(folder: str, files: Iterator[tuple[str, bytes]], modified_at: datetime) -> Iterator[bytes]:
    for path, content in files:
        yield _tar_head(f"{folder}/{path}", len(content), modified_at)
        yield from _small(iter((content + b"\0" * (_padded(len(content)) - len(content)),)))
    yield b"\0" * (2 * tarfile.BLOCKSIZE)


def _small(chunks: Iterator[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        yield from (chunk[begin : begin + MAX_CHUNK_BYTES] for begin in range(0, len(chunk), MAX_CHUNK_BYTES))


def _padded(num_bytes: int) -> int:
    return num_bytes + -num_bytes % tarfile.BLOCKSIZE


def _tar_chunks(heads: Sequence[bytes], members: Sequence[TarMember]) -> Iterator[bytes]:
    for head, member in zip(heads, members, strict=True):
        yield head
        if member.num_bytes:
            yield from exactly(member.read(0, member.num_bytes), member.num_bytes)
        yield b"\0" * (_padded(member.num_bytes) - member.num_bytes)
    yield b"\0" * (2 * tarfile.BLOCKSIZE)
