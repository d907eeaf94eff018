"""Work directories of attempts on local disk, removed with the attempt, also after a killed worker."""

import logging
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.file_locks import try_to_lock
from core.services.attempts.claimed_job import ClaimedJob

_LOCK_FILE = "lock"
_MAX_TRIES = 20

_log = logging.getLogger(__name__)


class WorkerScratch:
    """One worker's part of the scratch space, locked as long as the process lives."""

    def __init__(self, scratch_dir: Path) -> None:
        self._all = scratch_dir / "workers"
        self._lock: int | None
        self._mine, self._lock = self._settle()
        self._remove_leftovers()

    @contextmanager
    def attempt(self, claim: ClaimedJob) -> Iterator[Path]:
        """Create a directory for one attempt, removed afterwards."""
        with self.directory(f"{claim.job_id}-a{claim.attempt}") as directory:
            yield directory

    @contextmanager
    def directory(self, name: str) -> Iterator[Path]:
        """Create a directory for other work, removed afterwards."""
        directory = self._mine / name
        directory.mkdir(mode=0o700)
        try:
            yield directory.resolve()
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def close(self) -> None:
        shutil.rmtree(self._mine, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _settle(self) -> tuple[Path, int]:
        """Create and lock a directory of our own. Raises OSError.

        A worker that starts at the same moment may take it, not yet locked, for a leftover: then another one is made.
        """
        for _ in range(_MAX_TRIES):
            directory = self._all / uuid.uuid4().hex
            directory.mkdir(mode=0o700, parents=True)
            lock = _lock(directory)
            if lock is None:
                continue
            if _is_there(lock, directory):
                return directory, lock
            os.close(lock)  # the other one was done with it just before it was ours
        raise OSError(f"no work directory under {self._all} could be locked in {_MAX_TRIES} tries")

    def _remove_leftovers(self) -> None:
        """Remove directories of killed workers, whose locks are free."""
        for directory in self._all.iterdir():
            if directory == self._mine:
                continue
            lock = _lock(directory)
            if lock is not None:
                _log.info("removing the work directory of a worker that is gone: %s", directory.name)
                shutil.rmtree(directory, ignore_errors=True)
                os.close(lock)


def _lock(directory: Path) -> int | None:
    """Return a descriptor that holds the directory's lock, or None while another process does."""
    try:
        descriptor = os.open(directory / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError:  # removed meanwhile, or no folder of ours
        return None
    if try_to_lock(descriptor):
        return descriptor
    os.close(descriptor)
    return None


def _is_there(lock: int, directory: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(lock), (directory / _LOCK_FILE).stat())
    except OSError:
        return False
