"""Bytes on their way out: whole files, ranges of them, and folders as tar streams."""

import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, islice
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from api.http.problems import RANGE_NOT_SATISFIABLE, HttpError
from api.http.strict_route import is_none_match
from core.domain.errors import DomainError

Read = Callable[[int, int | None], Iterator[bytes]]
"""Chunks of the bytes [start, end)."""
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


class CutShort(Exception):
    """The store gave fewer bytes than promised: the answer is broken off, never filled up."""


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
    """The file or the range asked for. The ETag is the file's SHA-256, so a range of another file is never mixed in."""
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
    return StreamingResponse(content, 206 if wanted else 200, headers, "application/octet-stream")


def tar_response(folder: str, members: Sequence[TarMember], modified_at: datetime) -> Response:
    """A tar stream of one folder, of known length. The same members give the same bytes."""
    heads = [_tar_head(f"{folder}/{member.path}", member.num_bytes, modified_at) for member in members]
    num_bytes = sum(len(head) + _padded(member.num_bytes) for head, member in zip(heads, members, strict=True))
    headers = {
        "Content-Length": str(num_bytes + 2 * tarfile.BLOCKSIZE),
        "Content-Disposition": attachment(f"{folder}.tar"),
    }
    return StreamingResponse(begun(_tar_chunks(heads, members), 2), 200, headers, "application/x-tar")


def begun(chunks: Iterator[bytes], num_chunks: int = 1) -> Iterator[bytes]:
    """The same chunks, the first ones read: what is missing is found while a status can still be sent."""
    return chain(list(islice(chunks, num_chunks)), _too_late_for_a_problem(chunks))


def exactly(chunks: Iterator[bytes], num_bytes: int) -> Iterator[bytes]:
    """The same chunks. Raises CutShort when they end before, or go on after, as many bytes as promised."""
    sent = 0
    while sent < num_bytes:
        chunk = next(chunks, b"")
        if not chunk or sent + len(chunk) > num_bytes:
            raise CutShort(f"{sent + len(chunk)} bytes of {num_bytes}")
        sent += len(chunk)
        yield chunk


def _too_late_for_a_problem(chunks: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from chunks
    except DomainError as error:
        raise CutShort(error.detail) from error


def attachment(filename: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", filename)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"


def _wanted_range(request: Request, etag: str, num_bytes: int) -> tuple[int, int] | None:
    """[start, end), or None for the whole file: also for several ranges, and for one of another version."""
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


def _padded(num_bytes: int) -> int:
    return num_bytes + -num_bytes % tarfile.BLOCKSIZE


def _tar_chunks(heads: Sequence[bytes], members: Sequence[TarMember]) -> Iterator[bytes]:
    for head, member in zip(heads, members, strict=True):
        yield head
        if member.num_bytes:
            yield from exactly(member.read(0, member.num_bytes), member.num_bytes)
        yield b"\0" * (_padded(member.num_bytes) - member.num_bytes)
    yield b"\0" * (2 * tarfile.BLOCKSIZE)
