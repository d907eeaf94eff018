"""A file as a stream of UTF-8 bytes: hashed, decompressed, checked for foreign kinds, decoded by its mark (BOM)."""

import codecs
import hashlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Final

from core.datasets.faults import FileFault, quoted
from core.datasets.options import CheckOptions, Limits
from core.datasets.sources.decompression import decompress
from core.datasets.sources.signatures import HEAD_BYTES, compression_of, container_of, refuse_foreign
from core.domain.issue_codes import IssueCode

_CHUNK_BYTES: Final = 64 * 1024
_MARKS: Final = (  # the longer first: the mark of UTF-16 LE is the beginning of that of UTF-32 LE
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_TEXT_SUFFIXES: Final = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt")


class SourceFile:
    """The file as sent, read once from start to end; its digest covers every byte, used for rows or not."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self.num_bytes = path.stat().st_size
        self.path = path
        self._limits = limits
        self._digest = hashlib.sha256()
        self._stream = path.open("rb", buffering=0)

    def close(self) -> None:
        self._stream.close()

    def chunks(self) -> Iterator[bytes]:
        while chunk := self._stream.read(_CHUNK_BYTES):
            self._digest.update(chunk)
            yield chunk

    def sha256(self) -> str:
        """Read the rest and return the digest; empty for a file over the size limit, which is not read."""
        if self.num_bytes > self._limits.max_bytes:
            return ""
        for _ in self.chunks():
            pass
        return self._digest.hexdigest()

    def require_size(self) -> None:
        if self.num_bytes > self._limits.max_bytes:
            raise FileFault(
                IssueCode.FILE_TOO_LARGE,
                f"The file has {self.num_bytes:,} bytes; {self._limits.max_bytes:,} are allowed. Split it.",
            )
        if self.num_bytes == 0:
            raise FileFault(IssueCode.EMPTY_FILE, "The file is empty: it has no bytes. Did the export finish?")


class TextStream:
    """UTF-8 bytes of a source file."""

    def __init__(self, source: SourceFile, options: CheckOptions) -> None:
        source.require_size()
        head, chunks = _peek(source.chunks())
        self.compression = compression_of(head)
        _require_encoding(options.content_encoding, self.compression)
        if self.compression:
            head, chunks = _peek(decompress(chunks, self.compression, options.limits))
            if compression_of(head):
                raise FileFault(
                    IssueCode.NESTED_COMPRESSION, "The file is compressed twice. Compress it once, or not at all."
                )
        refuse_foreign(head)
        self.container = container_of(head)
        if self.container is not None and self.container != "tar":
            _refuse_text_name(options.filename, self.container)
        self.encoding, mark = _encoding_of(head) if self.container is None else ("utf-8", b"")
        chunks = _skip(chunks, len(mark))
        self.head = head[len(mark) :]
        if self.encoding != "utf-8":
            self.head, chunks = _peek(_transcode(chunks, self.encoding))
        self._chunks = chunks

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes, once."""
        return self._chunks


def _peek(chunks: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """Return the first bytes, and the stream with them put back."""
    taken: list[bytes] = []
    size = 0
    for chunk in chunks:
        taken.append(chunk)
        size += len(chunk)
        if size >= HEAD_BYTES:
            break
    return b"".join(taken)[:HEAD_BYTES], chain(taken, chunks)


def _skip(chunks: Iterator[bytes], num_bytes: int) -> Iterator[bytes]:
    for chunk in chunks:
        if num_bytes:
            num_bytes, chunk = max(0, num_bytes - len(chunk)), chunk[num_bytes:]
        yield chunk


def _require_encoding(claimed: str | None, found: str | None) -> None:
    if claimed is None or claimed.lower() in ("", "identity"):
        return
    name = {"x-gzip": "gzip"}.get(claimed.lower(), claimed.lower())
    if name not in ("gzip", "zstd"):
        raise FileFault(
            IssueCode.UNSUPPORTED_COMPRESSION,
            f"Content-Encoding {quoted(claimed)} is not read; use gzip, zstd or none.",
        )
    if name != found:
        raise FileFault(
            IssueCode.ENCODING_MISMATCH,
            f"Content-Encoding says {name}, but the bytes are {found or 'not compressed'}. Correct the header.",
        )


def _refuse_text_name(filename: str | None, container: str) -> None:
    """Refuse a Parquet or Arrow file sent as JSONL or CSV, most likely the wrong file."""
    if filename is not None and filename.lower().endswith(_TEXT_SUFFIXES):
        raise FileFault(
            IssueCode.WRONG_EXTENSION,
            f"The file is {container.capitalize()}, not text, though it is named {quoted(filename)}. Send the text "
            f"file, or name it .{container}.",
        )


def _encoding_of(head: bytes) -> tuple[str, bytes]:
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding, mark
    sample = head[:1024]
    if (
        len(sample) >= 16
        and b"\x00" in (sample[0:1], sample[1:2])
        and sample.count(0) * 5 > len(sample) * 2
        and sample.strip(b"\x00")
    ):
        raise FileFault(
            IssueCode.WRONG_ENCODING,
            "The file looks like UTF-16 or UTF-32 without a byte order mark. Save it as UTF-8.",
        )
    return "utf-8", b""


def _transcode(chunks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)(errors="strict")
    try:
        for chunk in chunks:
            yield decoder.decode(chunk).encode()
        yield decoder.decode(b"", final=True).encode()
    except UnicodeError:
        raise FileFault(
            IssueCode.WRONG_ENCODING,
            f"The file begins as {encoding.upper()}, but not all of it can be decoded so. Save it as UTF-8.",
        ) from None
