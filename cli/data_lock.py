"""Lock of a data directory for one service; its children hold the file lock too, until the last is gone."""

import json
import os
from pathlib import Path
from typing import Self

from core.durable_files import replace_text
from core.file_locks import wait_for_lock

_LOCK_FILE = "serve.lock"
_WORKER_FILE = "serve-worker.json"


class DataDirLock:
    def __init__(self, descriptor: int, data_dir: Path) -> None:
        self.descriptor = descriptor
        self._data_dir = data_dir

    @classmethod
    def take(cls, data_dir: Path, max_seconds: float) -> Self | None:
        """Wait for processes of an earlier service that are still ending; None when they do not end."""
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(data_dir / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if wait_for_lock(descriptor, max_seconds):
            return cls(descriptor, data_dir)
        os.close(descriptor)
        return None

    def release(self) -> None:
        os.close(self.descriptor)

    def remember_worker(self, name: str) -> None:
        """Record the worker's name, so that a later service can release the leases of a dead one."""
        replace_text(self._data_dir / _WORKER_FILE, json.dumps({"worker": name}))

    def last_worker(self) -> str | None:
        try:
            return str(json.loads((self._data_dir / _WORKER_FILE).read_text(encoding="utf-8"))["worker"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
