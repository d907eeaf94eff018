"""Object store in a local directory: acknowledged writes survive a power cut, and no object is ever partial.

An object is written beside the tree, synced, and renamed into place. Symbolic links are never followed out of the root.
"""

import errno
import os
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from core.durable_files import flush, new_private_file
from core.failpoints import reach
from core.storage.object_store import ObjectInfo, ObjectNotFound, StoreUnavailable

CHUNK_BYTES = 1024 * 1024
_TEMPORARY = ".tmp"
_MAX_PART_BYTES = 255
_MAX_RACES = 8


class LocalObjectStore:
    def __init__(self, root: Path) -> None:
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._root = root.resolve(strict=True)
            (self._root / _TEMPORARY).mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise StoreUnavailable("The directory of the object store cannot be made.") from error

    def put_file(self, key: str, source: Path, *, is_final: bool = False) -> None:
        if is_final and self._link(key, source):
            return

        def copy(target: BinaryIO) -> None:
            with source.open("rb") as content:
                shutil.copyfileobj(content, target, CHUNK_BYTES)

        self._put(key, copy)

    def put_bytes(self, key: str, data: bytes) -> None:
        self._put(key, lambda target: target.write(data))

    def get_file(self, key: str, target: Path) -> None:
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        with self._open(key) as content:
            try:
                with temporary.open("xb") as copy:
                    shutil.copyfileobj(content, copy, CHUNK_BYTES)
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)

    def get_bytes(self, key: str) -> bytes:
        with self._open(key) as content, _translated():
            return content.read()

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        return _chunks(self._open(key), start, end)

    def stat(self, key: str) -> ObjectInfo:
        with self._open(key) as content:
            return _info(key, os.fstat(content.fileno()))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        if not prefix.endswith("/"):
            raise ValueError(f"a prefix ends in a slash: {prefix!r}")
        path = self._path(prefix.removesuffix("/"))
        self._require_root()
        return self._walk(path, prefix)

    def delete(self, key: str) -> None:
        path = self._path(key)
        self._require_root()
        with _translated():
            try:
                path.unlink()
            except (FileNotFoundError, NotADirectoryError):
                return
            self._prune(path.parent)

    def download_url(self, key: str, *, filename: str, seconds: int) -> str | None:
        return None

    def check(self) -> None:
        self._require_root()
        probe = self._root / _TEMPORARY / f"check-{uuid.uuid4().hex}"
        with _translated():
            try:
                probe.write_bytes(b"ok")
                if probe.read_bytes() != b"ok":
                    raise StoreUnavailable("The object store's directory does not give back what was written.")
            finally:
                probe.unlink(missing_ok=True)

    def takes_any_key(self) -> bool:
        return False

    def ignores_conditions(self) -> bool:
        return False

    def remove_leftovers(self, older_than_seconds: float) -> None:
        """Delete the remains of interrupted writes."""
        limit = time.time() - older_than_seconds
        with _translated():
            for path in (self._root / _TEMPORARY).iterdir():
                if path.lstat().st_mtime < limit:
                    path.unlink(missing_ok=True)

    def _put(self, key: str, write: Callable[[BinaryIO], object]) -> None:
        path = self._path(key)
        temporary = self._root / _TEMPORARY / uuid.uuid4().hex
        with _translated():
            try:
                with new_private_file(temporary) as target:
                    write(target)
                reach("store.written")
                self._rename(temporary, path)
                reach("store.renamed")
            finally:
                temporary.unlink(missing_ok=True)

    def _link(self, key: str, source: Path) -> bool:
        """Whether the object could be hard-linked to the file, which fails across file systems."""
        path = self._path(key)
        temporary = self._root / _TEMPORARY / uuid.uuid4().hex
        try:
            os.link(source, temporary, follow_symlinks=False)
        except OSError:
            return False
        with _translated():
            try:
                descriptor = os.open(temporary, os.O_RDONLY | os.O_NOFOLLOW)
                try:
                    os.fchmod(descriptor, 0o600)
                    os.utime(descriptor)
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
                self._rename(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
        return True

    def _rename(self, temporary: Path, path: Path) -> None:
        for remaining in reversed(range(_MAX_RACES)):
            try:
                self._make_parents(path.parent)
                os.rename(temporary, path)
                break
            except FileNotFoundError:  # a delete has just removed the emptied folder
                if not remaining:
                    raise
        flush(path.parent)

    def _make_parents(self, directory: Path) -> None:
        missing = []
        while not directory.is_dir():
            missing.append(directory)
            directory = directory.parent
        for directory in reversed(missing):
            directory.mkdir(mode=0o700, exist_ok=True)
            flush(directory.parent)

    def _prune(self, directory: Path) -> None:
        """Remove folders that a delete has emptied."""
        while directory != self._root:
            try:
                directory.rmdir()
            except OSError:
                return
            directory = directory.parent

    def _open(self, key: str) -> BinaryIO:
        path = self._path(key)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            self._require_root()
            raise ObjectNotFound("There is no such object in the store.") from None
        except OSError as error:
            raise StoreUnavailable("The object cannot be read from the store's directory.") from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise ObjectNotFound("There is no such object in the store.")
        return os.fdopen(descriptor, "rb")

    def _path(self, key: str) -> Path:
        """Return the path of a key; a bad key is a mistake of our own code, not of a user."""
        for part in key.split("/"):
            if part in ("", ".", "..", _TEMPORARY) or "\0" in part or len(part.encode()) > _MAX_PART_BYTES:
                raise ValueError(f"not an object key: {key!r}")
        path = self._root / key
        if not path.parent.resolve().is_relative_to(self._root):
            raise ValueError(f"the key leaves the store's directory: {key!r}")
        return path

    def _require_root(self) -> None:
        # A file system that is not mounted must not look like a store that has lost its objects.
        if not (self._root / _TEMPORARY).is_dir():
            raise StoreUnavailable("The object store's directory is gone; is its file system mounted?")

    def _walk(self, directory: Path, prefix: str) -> Iterator[ObjectInfo]:
        with _translated():
            try:
                with os.scandir(directory) as scan:
                    entries = [(e.name + "/" * e.is_dir(follow_symlinks=False), e) for e in scan]
            except (FileNotFoundError, NotADirectoryError):
                return
        for name, entry in sorted(entries, key=lambda item: item[0].encode()):
            if name.endswith("/"):
                yield from self._walk(directory / entry.name, prefix + name)
            elif entry.is_file(follow_symlinks=False):
                try:
                    yield _info(prefix + name, entry.stat(follow_symlinks=False))
                except FileNotFoundError:
                    continue


def _info(key: str, status: os.stat_result) -> ObjectInfo:
    return ObjectInfo(key=key, num_bytes=status.st_size, modified_at=datetime.fromtimestamp(status.st_mtime, UTC))


def _chunks(content: BinaryIO, start: int, end: int | None) -> Iterator[bytes]:
    with content, _translated():
        content.seek(start)
        remaining = None if end is None else max(0, end - start)
        while remaining is None or remaining:
            chunk = content.read(CHUNK_BYTES if remaining is None else min(CHUNK_BYTES, remaining))
            if not chunk:
                return
            if remaining is not None:
                remaining -= len(chunk)
            yield chunk


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreUnavailable("The disk of the object store is full.") from error
        raise StoreUnavailable("The object store's directory cannot be read or written.") from error
