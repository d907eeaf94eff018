"""What a trainer prints, kept for `GET /jobs/{id}/log`: bounded, cleaned, and written every other second.

Lines are added by the thread that reads the trainer's standard error and written by the one that follows the trainer.
While the database is away the newest lines are kept; a worker that dies loses those of its last seconds.
"""

import threading
import time
import traceback
from collections import deque

from core.domain.errors import Unavailable
from core.domain.jobs.job_logs import MAX_WRITE_BYTES
from core.services.attempts.claimed_job import ClaimedJob
from core.services.attempts.log_parts import append_log
from core.telemetry.scrubbing import KeyBlock, Scrubber
from worker.patience import pause_seconds

WRITE_SECONDS = 2.0
MAX_LINE_CHARS = 4096
_MAX_WAITING_CHARS = 256 * 1024
_MAX_WRITE_CHARS = MAX_WRITE_BYTES // 8
"""UTF-8 takes up to four bytes for a character, and the name of one that a terminal obeys up to six."""
_HIDDEN_KEY = "*** (a private key)"


class LineCleaner:
    """Takes secrets and paths out of lines that come one after the other."""

    def __init__(self, scrubber: Scrubber) -> None:
        self._scrubber = scrubber
        self._key_block = KeyBlock()

    def hide_key(self, line: str) -> str:
        """Return the line, or a mark in the place of one of a key; to be called for every line in order."""
        return _HIDDEN_KEY if self._key_block.holds(line) else line

    def clean(self, line: str) -> str:
        """Clean a line before it is cut to what is shown, so that no part of a secret that is cut in two is left."""
        taken = self._scrubber.cut(line)
        cleaned = self._scrubber.clean(taken)
        num_cut = len(line) - len(taken) + max(0, len(cleaned) - MAX_LINE_CHARS)
        return cleaned if num_cut == 0 else f"{cleaned[:MAX_LINE_CHARS]} … {num_cut:,} characters of the line are cut"


class JobLog:
    def __init__(self, claim: ClaimedJob, scrubber: Scrubber) -> None:
        self._claim = claim
        self._cleaner = LineCleaner(scrubber)
        self._lock = threading.Lock()
        self._waiting: deque[str] = deque()
        self._num_chars = 0
        self._num_dropped = 0
        self._pending: str | None = None
        """Being written: cleaned, and under its number until the database has it."""
        self._num_writes = 0
        self._num_failures = 0
        self._due_at = time.monotonic()

    @property
    def is_empty(self) -> bool:
        return not self._waiting and self._pending is None

    def begin(self, what: str) -> None:
        """A line that separates what follows from what was before."""
        started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.add(f"=== attempt {self._claim.attempt}, {what}, {started}, on {self._claim.device} ===")

    def add(self, line: str) -> None:
        """Takes a line; the oldest ones go when they come faster than they are written."""
        with self._lock:
            kept = self._cleaner.hide_key(line)
            self._waiting.append(kept)
            self._num_chars += len(kept) + 1
            while self._num_chars > _MAX_WAITING_CHARS:
                self._pop()
                self._num_dropped += 1

    def add_error(self) -> None:
        """Add the traceback of the exception being handled: the worker's own, where no trainer could print it."""
        for line in traceback.format_exc().splitlines():
            self.add(line)

    def write_if_due(self) -> None:
        """Write what is due. Raises Fenced."""
        if not self.is_empty and time.monotonic() >= self._due_at:
            self.write()

    def write(self) -> None:
        """Write what was added, as much as one write takes; nothing while the database is away. Raises Fenced."""
        self._pending = self._pending or self._take()
        if self._pending is None:
            return
        try:
            append_log(self._claim, self._num_writes, self._pending)
        except Unavailable:
            self._due_at = time.monotonic() + pause_seconds(self._num_failures)
            self._num_failures += 1
            return
        self._pending = None
        self._num_writes += 1
        self._num_failures = 0
        self._due_at = time.monotonic() + WRITE_SECONDS

    def _take(self) -> str | None:
        lines: list[str] = []
        with self._lock:
            if self._num_dropped:
                lines.append(f"=== {self._num_dropped:,} lines came faster than they are stored, and are left out ===")
            self._num_dropped = num_chars = 0
            while self._waiting and num_chars < _MAX_WRITE_CHARS - MAX_LINE_CHARS:
                num_chars += min(len(self._waiting[0]), MAX_LINE_CHARS) + 1
                lines.append(self._pop())
        return "".join(f"{self._cleaner.clean(line)}\n" for line in lines) or None

    def _pop(self) -> str:
        line = self._waiting.popleft()
        self._num_chars -= len(line) + 1
        return line
