"""Sign of life: the age of a file, which health checks read, shows whether this worker moves.

Each lane beats in its loops. A thread touches the file every second for as long as all lanes have beaten lately: it
grows old when the whole process stands still, and when a single lane does.
"""

import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from core.settings import SettingsError

TOUCH_SECONDS = 1.0
STALL_SECONDS = 900.0
"""Between two beats there may be one large file on its way to or from the store."""

_log = logging.getLogger(__name__)


class LaneBeat:
    """Pulse of one lane, given by whichever of its threads works."""

    def __init__(self, name: str = "lane") -> None:
        self.name = name
        self._due_at = time.monotonic() + STALL_SECONDS

    def __call__(self, rest_seconds: float = 0.0) -> None:
        """Record that the lane moves; its next beat may be that much later."""
        self._due_at = max(self._due_at, time.monotonic() + rest_seconds + STALL_SECONDS)

    @property
    def is_missing(self) -> bool:
        return time.monotonic() > self._due_at


class Liveness:
    """Touches the file inside its context and removes it at the end. Does nothing without a path."""

    def __init__(self, path: Path | None, beats: Sequence[LaneBeat]) -> None:
        """Take a path; raises SettingsError for one that cannot be written."""
        self._path = path
        self._beats = beats
        self._stalled: set[str] = set()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)
        try:
            self.touch()
        except OSError as error:
            raise SettingsError(f"PREFTUNE_PULSE_PATH: {path} cannot be written ({error.strerror})") from None

    def __enter__(self) -> Self:
        if self._path is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        if self._path is not None:
            self._thread.join()
            self._path.unlink(missing_ok=True)

    def touch(self) -> None:
        """Touch the file unless a lane stands still."""
        stalled = {beat.name for beat in self._beats if beat.is_missing}
        for name in stalled - self._stalled:
            _log.error("the %s lane has not moved for %.0f s; health checks fail until it does", name, STALL_SECONDS)
        self._stalled = stalled
        if self._path is not None and not stalled:
            self._path.touch()

    def _run(self) -> None:
        while not self._is_over.wait(TOUCH_SECONDS):
            try:
                self.touch()
            except OSError as error:
                _log.warning("the file of the pulse cannot be touched: %s", error.strerror)
