"""Times of an attempt that only its supervisor can take, beside those that the trainer has measured."""

import time
from dataclasses import dataclass, field
from typing import Any


@dataclass
class AttemptTimes:
    """Clock of one attempt, from its claim on."""

    _began_at: float = field(default_factory=time.monotonic)
    _hello_at: float | None = None
    _trained_at: float | None = None
    _measured: dict[str, Any] | None = None

    def end_training(self, hello_at: float | None, measured: dict[str, Any] | None) -> None:
        """Note that the trainer has ended; `measured` is what it says of its whole run."""
        self._hello_at, self._trained_at, self._measured = hello_at, time.monotonic(), measured

    def measured(self, device_class: str) -> dict[str, Any] | None:
        """Return the measurement with the start before it and the publication after it, until now."""
        if self._measured is None or self._hello_at is None or self._trained_at is None:
            return None
        own = {"start_seconds": self._hello_at - self._began_at, "publish_seconds": time.monotonic() - self._trained_at}
        return self._measured | {"times": self._measured["times"] | own, "device_class": device_class}
