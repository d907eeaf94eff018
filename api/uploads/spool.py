"""Spooled uploads on the disk, before the check: counted, private to this user, and always removed.

Each process has a folder of its own, held by a file lock. A process that was killed leaves its folder unlocked, and
the next one to start removes it.
"""

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Self

from core.domain.errors import TooLarge, Unavailable
from core.file_locks import try_to_lock

_LOCK = "lock"
_PREFIX = "uploads-"


class UploadTooLarge(TooLarge):
    code = "upload-too-large"
    title = "The file is over the limit"


class SpoolFull(Unavailable):
    code = "spool-full"
    title = "The service's disk is full"


class SpooledFile:
    """A file being received. `write` counts, hashes and keeps the limit."""

    def __init__(self, path: Path, max_bytes: int, watch: Callable[[int], None] | None = None) -> None:
        self.path = path
        self.num_bytes = 0
        self._max_bytes = max_bytes
        self._watch = watch
        self._digest = hashlib.sha256()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._file: BinaryIO = os.fdopen(descriptor, "wb", buffering=0)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def write(self, data: bytes) -> None:
        """Write a chunk. Raises UploadTooLarge, SpoolFull, and what `watch` raises for the new number of bytes."""
        self.num_bytes += len(data)
        if self.num_bytes > self._max_bytes:
            raise UploadTooLarge(f"The file may have at most {self._max_bytes:,} bytes; split it.")
        if self._watch is not None:
            self._watch(self.num_bytes)
        self._digest.update(data)
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise SpoolFull("There is no room for the upload just now; try again later.") from error
            raise

    def close(self) -> None:
        self._file.close()


class SpoolArea:
    """Folder of this process below the scratch directory."""

    def __init__(self, folder: Path, lock: BinaryIO) -> None:
        self._folder = folder
        self._lock = lock

    @classmethod
    def open(cls, scratch_dir: Path) -> Self:
        """Create this process's folder, and remove those whose process is gone."""
        scratch_dir.mkdir(parents=True, exist_ok=True)
        for other in scratch_dir.glob(f"{_PREFIX}*"):
            _remove_if_abandoned(other)
        folder = scratch_dir / f"{_PREFIX}{secrets.token_hex(8)}"
        # Locked before it has its name: nobody may take it for abandoned in between.
        unnamed = scratch_dir / f".{folder.name}"
        unnamed.mkdir(mode=0o700)
        lock = (unnamed / _LOCK).open("wb")
        try_to_lock(lock.fileno())  # nobody else knows the file yet
        unnamed.rename(folder)
        return cls(folder, lock)

    @contextmanager
    def new_file(self, max_bytes: int, watch: Callable[[int], None] | None = None) -> Iterator[SpooledFile]:
        """A file that is gone when the block ends, whatever happens in it; `watch` is asked before each write."""
        path = self._folder / f"upload-{secrets.token_hex(16)}"
        spooled = SpooledFile(path, max_bytes, watch)
        try:
            yield spooled
        finally:
            spooled.close()
            path.unlink(missing_ok=True)

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._lock.close()


def _remove_if_abandoned(folder: Path) -> None:
    try:
        with (folder / _LOCK).open("rb") as lock:
            if try_to_lock(lock.fileno()):
                shutil.rmtree(folder, ignore_errors=True)
    except FileNotFoundError:
        shutil.rmtree(folder, ignore_errors=True)
