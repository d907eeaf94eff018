"""Folders of objects: uploaded with their manifest last, fetched only complete and verified.

`manifest.json` beside the files holds `{"version": 1, "files": [{"path", "num_bytes", "sha256"}]}`, paths with `/`.
Whoever records a tree keeps the SHA-256 of that manifest, and so of everything in it.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Protocol, TypeVar

import structlog

from core.domain.jobs.stored_files import StoredFile, StoredTree
from core.failpoints import reach
from core.storage.object_store import ObjectNotFound, ObjectStore, StoreUnavailable

MANIFEST = "manifest.json"
SUMS_FILE = "SHA256SUMS"
"""For people: `sha256sum -c SHA256SUMS` in a folder they downloaded."""
_VERSION = 1
_CHUNK_BYTES = 4 * 1024 * 1024
MAX_READS = 3
"""Reads of an object whose bytes differ from those stored: what was damaged only on the way comes right again."""

Result = TypeVar("Result")

_log = structlog.get_logger(__name__)


class BytesByKey(Protocol):
    """Whatever gives the bytes of small objects: a store, or a backup of one."""

    def get_bytes(self, key: str) -> bytes:
        """Return an object's bytes; raises ObjectNotFound."""


class TreeDamaged(Exception):
    """Raised for objects that are not what was recorded. The text is for the user."""


class _OtherBytes(TreeDamaged):
    """Raised for one read of an object that gave other bytes than were recorded."""


@dataclass(frozen=True, kw_only=True)
class UploadedTree(StoredTree):
    files: list[StoredFile]

    @property
    def num_bytes(self) -> int:
        return sum(file.num_bytes for file in self.files)


def _nothing() -> None:
    return


def file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as content:
        while chunk := content.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def describe(directory: Path, prefix: str = "") -> list[StoredFile]:
    """Describe every regular file below as stored under the prefix, ordered by path.

    Links are refused: a tree holds only its own bytes.
    """
    files = []
    for path in sorted(directory.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ValueError(f"neither file nor folder: {path}")
        name = path.relative_to(directory).as_posix()
        if path.is_file() and name != MANIFEST:
            num_bytes, sha256 = path.stat().st_size, file_sha256(path)
            files.append(StoredFile(path=name, num_bytes=num_bytes, sha256=sha256, key=prefix + name))
    return files


def write_sums(directory: Path) -> None:
    """Write `SHA256SUMS` over every other file below, replacing an earlier one."""
    (directory / SUMS_FILE).unlink(missing_ok=True)
    sums = [f"{file.sha256}  {file.path}\n" for file in describe(directory)]
    (directory / SUMS_FILE).write_text("".join(sums), encoding="utf-8")


def upload_tree(
    store: ObjectStore, prefix: str, directory: Path, *, between_files: Callable[[], None] = _nothing
) -> UploadedTree:
    """Store every file, check its size, and store the manifest last. `between_files` may raise to abort.

    Raises StoreUnavailable; uploading again is safe.
    """
    return store_manifest(store, prefix, upload_files(store, prefix, directory, between_files=between_files))


def upload_files(
    store: ObjectStore, prefix: str, directory: Path, *, between_files: Callable[[], None] = _nothing
) -> list[StoredFile]:
    """Store every file and check its size: a part of a tree that has no manifest yet. Raises StoreUnavailable."""
    files = describe(directory, prefix)
    for file in files:
        between_files()
        store.put_file(file.key, directory / file.path)
        if store.stat(file.key).num_bytes != file.num_bytes:
            raise StoreUnavailable("The object store holds another number of bytes than it was given.")
        reach("upload.file_stored")
    return files


def store_manifest(store: ObjectStore, prefix: str, files: list[StoredFile]) -> UploadedTree:
    """Complete a tree of stored files. Raises StoreUnavailable."""
    sums = [{"path": file.path, "num_bytes": file.num_bytes, "sha256": file.sha256} for file in files]
    manifest = json.dumps({"version": _VERSION, "files": sums}, indent=1).encode()
    reach("upload.files_stored")
    store.put_bytes(prefix + MANIFEST, manifest)
    reach("upload.manifest_stored")
    return UploadedTree(prefix=prefix, manifest_sha256=hashlib.sha256(manifest).hexdigest(), files=files)


def check_stored(store: ObjectStore, tree: UploadedTree, *, between_files: Callable[[], None] = _nothing) -> None:
    """Read every file back. Raises StoreUnavailable where the bytes differ."""
    for file in tree.files:
        between_files()
        try:
            _read_again(file.key, partial(_check_stored_file, store, file))
        except _OtherBytes:
            raise StoreUnavailable(
                f"The object store gives back other bytes of {file.path} than it was given."
            ) from None


def _check_stored_file(store: ObjectStore, file: StoredFile) -> None:
    digest = hashlib.sha256()
    for chunk in store.read(file.key):
        digest.update(chunk)
    if digest.hexdigest() != file.sha256:
        raise _OtherBytes(f"{file.path} has changed.")


def read_manifest(store: BytesByKey, tree: StoredTree) -> list[StoredFile]:
    """Return the files that the tree's manifest names. Raises TreeDamaged and StoreUnavailable."""
    try:
        content = _read_again(tree.prefix + MANIFEST, partial(_read_manifest_bytes, store, tree))
    except ObjectNotFound:
        raise TreeDamaged("its manifest is missing.") from None
    try:
        values = json.loads(content)
        files = [StoredFile(**file, key=tree.prefix + file["path"]) for file in values["files"]]
        is_known = values["version"] == _VERSION and all(_is_inside(file.path) for file in files)
    except (ValueError, TypeError, KeyError):
        is_known = False
    if not is_known:
        raise TreeDamaged("its manifest is of an unknown version.")
    return files


def _read_manifest_bytes(store: BytesByKey, tree: StoredTree) -> bytes:
    content = store.get_bytes(tree.prefix + MANIFEST)
    if hashlib.sha256(content).hexdigest() != tree.manifest_sha256:
        raise _OtherBytes("its manifest has changed.")
    return content


def fetch_tree(
    store: ObjectStore, tree: StoredTree, target: Path, *, between_files: Callable[[], None] = _nothing
) -> list[StoredFile]:
    """Fetch every file into `target`, which must not exist, and verify each. Raises TreeDamaged, StoreUnavailable."""
    files = read_manifest(store, tree)
    target.mkdir(mode=0o700, parents=True)
    for file in files:
        between_files()
        fetch_file(store, file, target / file.path)
    return files


def fetch_file(store: ObjectStore, file: StoredFile, target: Path) -> None:
    """Fetch one object and verify it. Raises TreeDamaged, StoreUnavailable."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        _read_again(file.key, partial(_fetch_once, store, file, target))
    except ObjectNotFound:
        raise TreeDamaged(f"{file.path} is missing.") from None
    reach("fetch.file_verified")


def _fetch_once(store: ObjectStore, file: StoredFile, target: Path) -> None:
    store.get_file(file.key, target)
    if target.stat().st_size != file.num_bytes:
        raise _OtherBytes(f"{file.path} has {target.stat().st_size} bytes instead of {file.num_bytes}.")
    if file_sha256(target) != file.sha256:
        raise _OtherBytes(f"{file.path} has changed.")


def _read_again(key: str, read: Callable[[], Result]) -> Result:
    """Repeat `read` up to `MAX_READS` times while it raises _OtherBytes; the last one is raised."""
    for _ in range(MAX_READS - 1):
        try:
            return read()
        except _OtherBytes as damage:
            _log.warning("object_read_again", key=key, detail=str(damage))
    return read()


def _is_inside(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return bool(parts) and not path.startswith("/") and ".." not in parts and "\0" not in path
