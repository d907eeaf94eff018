"""Secrets in files, read again while a process runs, so that they are changed without a stop."""

import threading
import time
from pathlib import Path

import structlog

MAX_AGE_SECONDS = 2.0
MAX_FILE_BYTES = 64 * 1024

log = structlog.get_logger(__name__)


class SecretFile:
    """Text of a file, at most two seconds old. While the file cannot be read, or is empty, the text before counts."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._text = text
        self._lock = threading.RLock()  # the log that is told of a change asks for what to leave out
        self._read_at = time.monotonic()
        self._is_told = False

    def read(self, *, max_age_seconds: float = MAX_AGE_SECONDS) -> str:
        with self._lock:
            if time.monotonic() - self._read_at >= max_age_seconds:
                self._read_at = time.monotonic()
                self._refresh()
            return self._text

    def _refresh(self) -> None:
        try:
            with self._path.open(encoding="utf-8") as file:
                text = file.read(MAX_FILE_BYTES + 1)
        except (OSError, ValueError) as error:
            self._tell(type(error).__name__)
            return
        if not text.strip() or len(text) > MAX_FILE_BYTES:
            self._tell("empty, or too large")
            return
        self._is_told = False
        text = without_line_end(text)
        if text != self._text:
            self._text = text
            log.info("secret_changed", file=self._path.name)

    def _tell(self, reason: str) -> None:
        if not self._is_told:
            self._is_told = True
            log.warning("secret_file_unreadable", file=self._path.name, reason=reason, meaning="the one before counts")


def without_line_end(text: str) -> str:
    return text.removesuffix("\n").removesuffix("\r")
