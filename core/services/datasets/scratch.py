"""Temporary folders of the scratch directory."""

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.settings import Settings


@contextmanager
def scratch_folder(settings: Settings, purpose: str) -> Iterator[Path]:
    settings.scratch_dir.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{purpose}-", dir=settings.scratch_dir))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


_FLUSH_SECONDS = 0.5


@contextmanager
def flushed_meanwhile(*paths: Path) -> Iterator[None]:
    """Flush the files to the disk while the block works.

    Else gigabytes wait in memory until the store syncs them, and whoever waits for the answer waits for the disk alone.
    """
    stopped = threading.Event()

    def flush() -> None:
        while not stopped.wait(_FLUSH_SECONDS):
            for path in paths:
                _flush(path)

    thread = threading.Thread(target=flush, name="flush", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def _flush(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:  # not made yet, or refused and gone
        return
    try:
        os.fdatasync(descriptor)
    except OSError:  # the store will meet it again, and say so
        return
    finally:
        os.close(descriptor)
