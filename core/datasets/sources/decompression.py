"""Bounded streams of gzip, zstd, bzip2 and xz; a decompression bomb is refused while it unfolds."""

import bz2
import lzma
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Final, Protocol

import zstandard

from core.datasets.faults import FileFault
from core.datasets.options import MIB, Limits
from core.domain.issue_codes import IssueCode

_MAX_INPUT: Final = 8 * 1024
_MAX_OUTPUT: Final = 256 * 1024
_ZSTD_INPUT: Final = 1024
"""zstandard gives out all that a piece of input holds, at most 32,768-fold: 32 MiB for a piece of this size."""
_MAX_WINDOW: Final = 128 * MIB
_MAX_XZ_MEMORY: Final = 128 * MIB
"""`xz -9` needs 65 MiB."""


class _Decoder(Protocol):
    """One gzip member or zstd frame."""

    def feed(self, data: bytes) -> Iterator[bytes]: ...

    @property
    def is_finished(self) -> bool: ...

    @property
    def unused(self) -> bytes: ...


class _GzipMember:
    def __init__(self) -> None:
        self._decoder = zlib.decompressobj(wbits=31)

    def feed(self, data: bytes) -> Iterator[bytes]:
        is_full = True
        while (data or is_full) and not self._decoder.eof:  # a full output may leave more behind than its input
            output = self._decoder.decompress(data, _MAX_OUTPUT)
            is_full = len(output) == _MAX_OUTPUT
            data = self._decoder.unconsumed_tail
            yield output

    @property
    def is_finished(self) -> bool:
        return self._decoder.eof

    @property
    def unused(self) -> bytes:
        return self._decoder.unused_data


class _ZstdFrame:
    def __init__(self) -> None:
        self._decoder = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW).decompressobj()
        self._unused = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        for begin in range(0, len(data), _ZSTD_INPUT):
            yield self._decoder.decompress(data[begin : begin + _ZSTD_INPUT])
            if self._decoder.eof:
                self._unused = self._decoder.unused_data + data[begin + _ZSTD_INPUT :]
                return

    @property
    def is_finished(self) -> bool:
        return bool(self._decoder.eof)

    @property
    def unused(self) -> bytes:
        return self._unused


class _BlockStream:
    """One bzip2 or xz stream."""

    def __init__(self, decoder: bz2.BZ2Decompressor | lzma.LZMADecompressor) -> None:
        self._decoder = decoder

    def feed(self, data: bytes) -> Iterator[bytes]:
        yield self._decoder.decompress(data, _MAX_OUTPUT)
        while not self._decoder.eof and not self._decoder.needs_input:
            yield self._decoder.decompress(b"", _MAX_OUTPUT)

    @property
    def is_finished(self) -> bool:
        return self._decoder.eof

    @property
    def unused(self) -> bytes:
        return self._decoder.unused_data


_DECODERS: Final[dict[str, Callable[[], _Decoder]]] = {
    "gzip": _GzipMember,
    "zstd": _ZstdFrame,
    "bzip2": lambda: _BlockStream(bz2.BZ2Decompressor()),
    "xz": lambda: _BlockStream(lzma.LZMADecompressor(lzma.FORMAT_XZ, _MAX_XZ_MEMORY)),
}


def decompress(chunks: Iterable[bytes], compression: str, limits: Limits) -> Iterator[bytes]:
    """Yield the bytes of all members or frames, one after the other.

    Raises:
        FileFault: over a limit, cut short, damaged, or followed by other bytes.
    """
    try:
        is_complete = yield from _members(chunks, compression, _Meter(limits))
    except (zlib.error, zstandard.ZstdError, lzma.LZMAError, OSError, EOFError):  # bz2 raises OSError
        raise FileFault(
            IssueCode.DAMAGED_FILE,
            f"The {compression} file is damaged, or has other bytes after its end. Compress and send it again.",
        ) from None
    if not is_complete:
        raise FileFault(
            IssueCode.DAMAGED_FILE,
            f"The compressed file is incomplete: the {compression} stream stops before its end. Send it again.",
        )


def _members(chunks: Iterable[bytes], compression: str, meter: "_Meter") -> Generator[bytes, None, bool]:
    """Decompress members and return whether the last one came to its end."""
    decoder: _Decoder | None = None
    for waiting in _small(chunks):
        meter.add_input(len(waiting))
        while waiting:
            decoder = decoder or _DECODERS[compression]()
            for piece in decoder.feed(waiting):
                meter.add_output(len(piece))
                yield piece
            waiting = decoder.unused if decoder.is_finished else b""
            if decoder.is_finished:
                decoder = None
    return decoder is None


def _small(chunks: Iterable[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        for begin in range(0, len(chunk), _MAX_INPUT):
            yield chunk[begin : begin + _MAX_INPUT]


class _Meter:
    """Counts bytes in and out; input is counted when fed, so the ratio is judged at most one piece late."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._num_in = 0
        self._num_out = 0

    def add_input(self, num_bytes: int) -> None:
        self._num_in += num_bytes

    def add_output(self, num_bytes: int) -> None:
        self._num_out += num_bytes
        if self._num_out > self._limits.max_decompressed_bytes:
            raise FileFault(
                IssueCode.DECOMPRESSED_TOO_LARGE,
                f"The file is larger than {self._limits.max_decompressed_bytes // MIB:,} MiB decompressed. Split it.",
            )
        if self._num_out > self._limits.ratio_free_bytes and self._num_out > self._limits.max_ratio * self._num_in:
            raise FileFault(
                IssueCode.COMPRESSION_RATIO,
                f"The file grows more than {self._limits.max_ratio}-fold when decompressed, as a bomb does. "
                "Send it uncompressed if it is real.",
            )
