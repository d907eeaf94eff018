"""Durable files: flushed to the disk, private to the service's user, replaced as a whole."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO


def flush(path: Path) -> None:
    """Wait until a file's bytes, or a directory's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_tree(directory: Path) -> None:
    """Wait until everything below a directory is on the disk."""
    for path in directory.iterdir():
        if path.is_dir():
            flush_tree(path)
        else:
            flush(path)
    flush(directory)


@contextmanager
def new_private_file(path: Path) -> Iterator[BinaryIO]:
    """Create a file that only this user may read, to be written in the block and on the disk after it.

    Raises FileExistsError where there is one; links are not followed.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        yield file
        file.flush()
        os.fsync(descriptor)


def replace_text(path: Path, text: str) -> None:
    """Replace a file's text, so that a reader finds the old one or the new one; it is not flushed."""
    temporary = path.with_name(f".{path.name}.{token_hex(4)}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
