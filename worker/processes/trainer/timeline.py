"""Timeline of a training process: where its seconds went, and how much memory it had meanwhile."""

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

_STATUS, _PAGES = Path("/proc/self/status"), Path("/proc/self/statm")
_SAMPLE_SECONDS = 0.05


@dataclass
class Lap:
    """All laps of one kind."""

    seconds: float = 0.0
    number: int = 0
    peak_bytes: int = 0
    """Most memory during one of them."""


class Timeline:
    """Divides the time of the process among what it reports: each report ends a lap, which is its own.

    Inside its context a thread looks at the memory of the process many times a second, since the system tells the most
    so far only: between two looks a short peak is missed, unless it is the highest of all.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self.laps: dict[str, Lap] = {}
        self._since = time.perf_counter()
        self._highest = peak_bytes(device)
        self._seen = 0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="memory of laps", daemon=True)

    def __enter__(self) -> Self:
        if not self.device.startswith("cuda"):
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        if self._thread.is_alive():
            self._thread.join()

    def lap(self, name: str) -> None:
        """End a lap of this kind: since the last one ended."""
        now, highest = time.perf_counter(), peak_bytes(self.device)
        lap = self.laps.setdefault(name, Lap())
        lap.seconds += now - self._since
        lap.number += 1
        lap.peak_bytes = max(lap.peak_bytes, self._seen, highest if highest > self._highest else self._now())
        self._since, self._highest, self._seen = now, highest, 0

    def _now(self) -> int:
        return torch.cuda.memory_allocated(self.device) if self.device.startswith("cuda") else _now_bytes()

    def _look(self) -> None:
        while not self._is_over.wait(_SAMPLE_SECONDS):
            self._seen = max(self._seen, _now_bytes())


def peak_bytes(device: str) -> int:
    """Return the most memory so far: allocated on the GPU, or resident in this process; 0 where nobody counts."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    try:
        facts = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines() if ":" in line)
        return int(facts["VmHWM"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 0


def _now_bytes() -> int:
    try:
        return int(_PAGES.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
