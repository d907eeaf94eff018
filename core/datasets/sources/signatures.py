"""Signatures of files in their first bytes: the kinds that are refused, and the compressions that are read."""

import re
from typing import Final, Literal, NamedTuple

from core.datasets.faults import FileFault
from core.domain.issue_codes import IssueCode

HEAD_BYTES: Final = 64 * 1024


class _Signature(NamedTuple):
    magic: bytes
    code: IssueCode
    what: str
    offset: int = 0


_ARCHIVE, _BINARY, _COMPRESSED = IssueCode.ARCHIVE, IssueCode.BINARY_FILE, IssueCode.UNSUPPORTED_COMPRESSION
_ENCRYPTED: Final = IssueCode.ENCRYPTED_FILE
_SIGNATURES: Final = (
    _Signature(b"PK\x03\x04", _ARCHIVE, "a zip archive"),
    _Signature(b"PK\x05\x06", _ARCHIVE, "an empty zip archive"),
    _Signature(b"7z\xbc\xaf\x27\x1c", _ARCHIVE, "a 7-Zip archive"),
    _Signature(b"Rar!\x1a\x07", _ARCHIVE, "a RAR archive"),
    _Signature(b"\x04\x22\x4d\x18", _COMPRESSED, "compressed with lz4"),
    _Signature(b"\x1f\x9d", _COMPRESSED, "compressed with compress"),
    _Signature(b"PARE", _ENCRYPTED, "an encrypted Parquet file"),
    _Signature(b"\x89PNG\r\n\x1a\n", _BINARY, "a PNG image"),
    _Signature(b"\xff\xd8\xff", _BINARY, "a JPEG image"),
    _Signature(b"GIF8", _BINARY, "a GIF image"),
    _Signature(b"%PDF-", _BINARY, "a PDF document"),
    _Signature(b"\x7fELF", _BINARY, "a program"),
    _Signature(b"MZ\x90\x00", _BINARY, "a program"),
    _Signature(b"SQLite format 3\x00", _BINARY, "an SQLite database"),
    _Signature(b"\x89HDF\r\n\x1a\n", _BINARY, "an HDF5 file"),
    _Signature(b"ORC", _BINARY, "an ORC file"),
    _Signature(b"Obj\x01", _BINARY, "an Avro file"),
    _Signature(b"GGUF", _BINARY, "a GGUF model"),
    _Signature(b"\x93NUMPY", _BINARY, "a NumPy array"),
)
_OLD_OFFICE: Final = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ZIP: Final = b"PK\x03\x04"
_WORKBOOK_MARKS: Final = (b"xl/", b"application/vnd.oasis.opendocument.spreadsheet")
_HINTS: Final = {
    _ARCHIVE: "Unpack it and send the data file itself; one file may be compressed with gzip or zstd",
    _BINARY: "Send JSONL, a JSON array, CSV, TSV, Parquet or Arrow",
    _ENCRYPTED: "Write it without encryption",
    _COMPRESSED: "Send it uncompressed, or compressed with gzip or zstd",
}
# Protocol 0 has no magic bytes, but begins with an opcode and a module's or class's name; protocols 2 to 5 do.
_TEXT_PICKLE = re.compile(rb"\(?[ci]\w[\w.]*\n\w[\w.]*\n|\(?[dl]p\d+\n")
_BINARY_PICKLE = re.compile(rb"\x80[\x01-\x05]")
_LFS_POINTER: Final = b"version https://git-lfs.github.com/spec/"
_ZSTD_SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")

_BZIP2 = re.compile(rb"BZh[1-9]\x31\x41\x59\x26\x53\x59")
_XZ_MAGIC: Final = b"\xfd7zXZ\x00"
GZIP_MAGIC: Final = b"\x1f\x8b"
ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
PARQUET_MAGIC: Final = b"PAR1"


ARROW_FILE_MAGIC: Final = b"ARROW1"
_ARROW_STREAM_MAGIC: Final = b"\xff\xff\xff\xff"
_TAR_MAGIC: Final = b"ustar"
_TAR_MAGIC_OFFSET: Final = 257
Container = Literal["parquet", "arrow", "tar"]


def container_of(head: bytes) -> Container | None:
    """Return which of the containers that are no text the file is."""
    if head.startswith(PARQUET_MAGIC):
        return "parquet"
    if head.startswith((ARROW_FILE_MAGIC, _ARROW_STREAM_MAGIC)):
        return "arrow"
    return "tar" if head.startswith(_TAR_MAGIC, _TAR_MAGIC_OFFSET) else None


def compression_of(head: bytes) -> str | None:
    if head.startswith(GZIP_MAGIC):
        return "gzip"
    if _BZIP2.match(head):
        return "bzip2"
    if head.startswith(_XZ_MAGIC):
        return "xz"
    if head.startswith(ZSTD_MAGIC) or _ZSTD_SKIPPABLE.match(head):
        return "zstd"
    return None


def refuse_foreign(head: bytes) -> None:
    """Raise FileFault for bytes that are certainly no dataset."""
    if head.startswith(_OLD_OFFICE) or (head.startswith(_ZIP) and any(mark in head for mark in _WORKBOOK_MARKS)):
        raise FileFault(
            IssueCode.WORKBOOK,
            "The file is a workbook of a spreadsheet program. Save the sheet as CSV UTF-8 (Excel: 'CSV UTF-8') "
            "and send that. A cell keeps 32,767 characters at most, so export long texts as JSONL instead.",
        )
    for signature in _SIGNATURES:
        if head.startswith(signature.magic, signature.offset):
            raise FileFault(signature.code, f"The file is {signature.what}. {_HINTS[signature.code]}.")
    if _BINARY_PICKLE.match(head) or _TEXT_PICKLE.match(head):
        raise FileFault(
            IssueCode.PICKLE,
            "The file is a Python pickle. Loading one can run any program, so it is never done. "
            "Save the data as JSONL or Parquet.",
        )
    if head.startswith(_LFS_POINTER):
        raise FileFault(
            IssueCode.GIT_LFS_POINTER,
            "The file is a git-LFS pointer: three lines that stand for the data, not the data. "
            "Run `git lfs pull` where you took it from, and send the real file.",
        )
