"""Recognition of a full disk in whatever error it shows up as, and the words in which it is told.

Libraries tell of it in exceptions of their own, and child processes by their last words only.
"""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.domain.errors import DomainError

OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT)
EXIT_OUT_OF_SPACE = 79
"""Status with which a child process of ours ends for a full disk."""
GOES_ON = "the job continues from its last checkpoint"
"""What a job does once there is room."""
_TEXTS = ("No space left on device", "Disk quota exceeded", "database or disk is full")
_SMALLEST_FREE = 64 * 1024
"""Bytes; a disk with less has no room for the log that would tell."""
_MOST_CAUSES = 10
_ADVICE = "Free some space on the disk of PREFTUNE_DATA_DIR, or give it a larger one"


class NoRoom(OSError):
    """Raised in the place of a full disk's error, with what was being written."""

    def __init__(self, purpose: str) -> None:
        super().__init__(errno.ENOSPC, f"No space left on device for {purpose}")
        self.purpose = purpose


def is_out_of_space(error: BaseException) -> bool:
    """Return whether an error, or one that it was raised from, is that of a full disk.

    The house's own errors name their cause already: a full disk of the object store is an outage.
    """
    return not isinstance(error, DomainError) and any(_is_itself(cause) for cause in _causes(error))


def purpose_of(error: BaseException) -> str | None:
    """Return what could not be written, where it is known."""
    return next((cause.purpose for cause in _causes(error) if isinstance(cause, NoRoom)), None)


def is_full(directory: Path, log: str = "") -> bool:
    """Return whether a child process that wrote into a directory, and this log, has failed for lack of room."""
    return any(text in log for text in _TEXTS) or shutil.disk_usage(directory).free < _SMALLEST_FREE


def full_disk_detail(purpose: str | None, then: str) -> str:
    """Say that the worker's disk is full.

    Args:
        purpose: what could not be written, such as "a checkpoint".
        then: what happens, or is to be done, once there is room; half a sentence.
    """
    lacking = f" and has no room for {purpose}" if purpose else ""
    return f"The worker's disk is full{lacking}. {_ADVICE}; {then}."


@contextmanager
def room_for(purpose: str) -> Iterator[None]:
    """Turn the error of a full disk into `NoRoom`, once. Other errors pass."""
    try:
        yield
    except Exception as error:
        if purpose_of(error) is None and is_out_of_space(error):
            raise NoRoom(purpose) from error
        raise


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    for _ in range(_MOST_CAUSES):
        if cause is None:
            return
        yield cause
        cause = cause.__cause__ or cause.__context__


def _is_itself(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in OUT_OF_SPACE
    return any(text in str(error) for text in _TEXTS)
