"""The newest lines that a node's trainers have printed: where they fail, its report brings them to the job's log."""

import threading
from collections import deque

from core.telemetry.scrubbing import Scrubber
from worker.attempt.records.job_log import LineCleaner

MAX_CHARS = 16_384
MAX_LINES = 200


class LogTail:
    """Takes lines by one thread and gives them to another."""

    def __init__(self, scrubber: Scrubber) -> None:
        self._cleaner = LineCleaner(scrubber)
        self._lock = threading.Lock()
        self._lines: deque[str] = deque()
        self._num_chars = 0

    def add(self, line: str) -> None:
        """Take a line; the oldest ones go when there are too many."""
        with self._lock:
            kept = self._cleaner.clean(self._cleaner.hide_key(line))
            self._lines.append(kept)
            self._num_chars += len(kept)
            while len(self._lines) > MAX_LINES or self._num_chars > MAX_CHARS:
                self._num_chars -= len(self._lines.popleft())

    def lines(self) -> list[str]:
        """Return the lines, without secrets and paths of this machine."""
        with self._lock:
            return list(self._lines)
