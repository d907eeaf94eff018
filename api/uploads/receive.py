"""Reception of a data file, as a form or as the raw body, onto the disk."""

import hashlib
import json
import unicodedata
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Self

from anyio import CapacityLimiter, to_thread
from starlette.requests import Request

from api.http.problems import INVALID_REQUEST, UNSUPPORTED_BODY, HttpError
from api.http.strict_json import pointer_part
from api.uploads.arrival import DiskBudget, disk_room
from api.uploads.form import FILE_FIELD, FormReader
from api.uploads.spool import SpoolArea, SpooledFile
from core.domain.errors import FieldError

BUFFER_BYTES = 512 * 1024
MAX_FILENAME_BYTES = 255


@dataclass(frozen=True, kw_only=True)
class UploadDesk:
    """Spool area of this process's uploads, and their number at a time."""

    area: SpoolArea
    budget: DiskBudget
    max_bytes: int
    write_limiter: CapacityLimiter
    """Threads that write to the disk."""
    check_limiter: CapacityLimiter
    """Threads that wait for a check to end, which may take minutes; kept apart from those of short requests."""

    def limited(self, max_bytes: int | None) -> Self:
        return self if max_bytes is None else replace(self, max_bytes=min(self.max_bytes, max_bytes))


@dataclass(frozen=True, kw_only=True)
class ReceivedUpload:
    """A received file, removed when the block that received it ends."""

    path: Path
    num_bytes: int
    sha256: str
    filename: str | None
    content_encoding: str | None
    options: dict[str, str]
    """Options of the form and of the query together, as texts."""

    def fingerprint(self) -> str:
        """Digest of file and options, the same however they were sent."""
        parts = [self.sha256, self.filename, self.content_encoding, sorted(self.options.items())]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@asynccontextmanager
async def receive_upload(
    request: Request, desk: UploadDesk, watch: Callable[[int], None] | None = None, *, file_field: str = FILE_FIELD
) -> AsyncIterator[ReceivedUpload]:
    """The file, until the block ends. Writes on threads, never on the event loop; `watch` is asked before each."""
    limiter = desk.write_limiter
    with desk.area.new_file(desk.max_bytes, watch) as file:
        content_type = request.headers.get("content-type", "")
        if content_type.lower().startswith("multipart/"):
            yield await _receive_form(request, file, limiter, file_field)
        else:
            yield await _receive_raw(request, file, limiter)


@asynccontextmanager
async def receive_part(request: Request, desk: UploadDesk, max_bytes: int) -> AsyncIterator[SpooledFile]:
    """Receive the raw body as a file for the block."""
    if _content_encoding(request.headers.get("content-encoding")) is not None:
        raise HttpError(UNSUPPORTED_BODY, "Send the bytes of the file as they are, without Content-Encoding.")
    async with disk_room(request, desk.budget, desk.write_limiter) as watch:
        with desk.area.new_file(max_bytes, watch) as file:
            await _pump(request, file.write, desk.write_limiter)
            yield file


async def _receive_form(
    request: Request, file: SpooledFile, limiter: CapacityLimiter, file_field: str
) -> ReceivedUpload:
    content_type = request.headers.get("content-type", "")
    if not content_type.lower().startswith("multipart/form-data"):
        raise HttpError(UNSUPPORTED_BODY, "Of multipart bodies only multipart/form-data is read.")
    if _content_encoding(request.headers.get("content-encoding")) is not None:
        raise HttpError(UNSUPPORTED_BODY, "Compress the file inside the form, not the form.")
    reader = FormReader(content_type, file, file_field)
    await _pump(request, reader.feed, limiter)
    reader.finish()
    query = dict(request.query_params)
    for name in query.keys() & reader.fields.keys():
        error = FieldError(pointer_part(name), "stands in the form and in the query; keep one of the two")
        raise HttpError(INVALID_REQUEST, f"{error.pointer}: {error.detail}", errors=[error])
    return ReceivedUpload(
        path=file.path,
        num_bytes=file.num_bytes,
        sha256=file.sha256,
        filename=clean_filename(reader.filename),
        content_encoding=_content_encoding(reader.file_headers.get("content-encoding")),
        options=query | reader.fields,
    )


async def _receive_raw(request: Request, file: SpooledFile, limiter: CapacityLimiter) -> ReceivedUpload:
    await _pump(request, file.write, limiter)
    return ReceivedUpload(
        path=file.path,
        num_bytes=file.num_bytes,
        sha256=file.sha256,
        filename=None,
        content_encoding=_content_encoding(request.headers.get("content-encoding")),
        options=dict(request.query_params),
    )


async def _pump(request: Request, write: Callable[[bytes], None], limiter: CapacityLimiter) -> None:
    buffer = bytearray()
    async for chunk in request.stream():
        buffer += chunk
        if len(buffer) >= BUFFER_BYTES:
            await to_thread.run_sync(write, bytes(buffer), limiter=limiter)
            buffer.clear()
    if buffer:
        await to_thread.run_sync(write, bytes(buffer), limiter=limiter)


def clean_filename(filename: str | None) -> str | None:
    """Return the last part of a client's file name, fit to be shown: data, never a path."""
    if filename is None:
        return None
    last = PurePosixPath(unicodedata.normalize("NFC", filename).replace("\\", "/")).name
    shown = "".join(character for character in last if unicodedata.category(character)[0] != "C")
    return shown.encode()[:MAX_FILENAME_BYTES].decode(errors="ignore").strip() or None


def _content_encoding(header: str | None) -> str | None:
    encoding = (header or "").strip().lower()
    return None if encoding in ("", "identity") else encoding
