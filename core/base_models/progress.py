"""Progress reports of a pull."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Phase = Literal["waiting", "hub", "package", "convert", "checksum", "done"]
"""waiting: another process pulls the same model. hub, package: bytes come in. convert: weights are rewritten."""


@dataclass(frozen=True, kw_only=True)
class PullProgress:
    phase: Phase
    message: str
    """For the person who waits; changes rarely within a phase."""
    done_bytes: int = 0
    total_bytes: int | None = None
    """None where there is nothing to count."""


ProgressCallback = Callable[[PullProgress], None]


def ignore_progress(progress: PullProgress) -> None:
    """Discard progress reports."""
