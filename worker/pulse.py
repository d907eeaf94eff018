"""The age of a file says whether this worker moves; health checks look at it.

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


class Beat:
    """Of one lane, from whichever of its threads has the work."""

    def __init__(self, name: str = "lane") -> None:
        self.name = name
        self._due_at = time.monotonic() + STALL_SECONDS

    def __call__(self, rest_seconds: float = 0.0) -> None:
        """The lane moves; one of its threads need not beat while it rests for so long."""
        self._due_at = max(self._due_at, time.monotonic() + rest_seconds + STALL_SECONDS)

    @property
    def is_missing(self) -> bool:
        return time.monotonic() > self._due_at


class Pulse:
    """Touches the file between `with` and its end, and then removes it. Without a path it does nothing."""

    def __init__(self, path: Path | None, beats: Sequence[Beat]) -> None:
        """Raises SettingsError for a path that cannot be written to."""
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
        """Unless a lane stands still."""
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
