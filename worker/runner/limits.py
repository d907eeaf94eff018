"""What one runner may take, from its settings."""

import os
from dataclasses import dataclass

from core.control_groups import memory_limit_bytes
from core.settings import Settings, SettingsError
from worker.device import count_threads

_SHARE_OF_MEMORY = 0.4
_NICENESS = 10
"""A tenth of a processor that training wants as well."""


@dataclass(frozen=True, kw_only=True)
class RunnerLimits:
    device: str
    num_threads: int
    niceness: int
    may_share: bool
    """Whether models may answer while a job trains on the device."""
    memory_bytes: int
    idle_seconds: float
    max_sequences: int
    max_waiting: int
    max_context: int
    timeout_seconds: float

    @classmethod
    def of(cls, settings: Settings) -> "RunnerLimits":
        """Read the settings. Raises SettingsError."""
        device = settings.runner_device
        kind, _, number = device.partition(":")
        if device != "cpu" and (kind != "cuda" or not (number.isdecimal() or number == "")):
            raise SettingsError("PREFTUNE_RUNNER_DEVICE: must be cpu, cuda or cuda:<n>")
        sharing = settings.runner_sharing
        if sharing == "auto":
            sharing = "training-first" if device == "cpu" else "never"
        return cls(
            device=device,
            num_threads=count_threads(settings.runner_threads),
            niceness=_NICENESS if sharing == "training-first" else 0,
            may_share=sharing != "never",
            memory_bytes=settings.runner_memory_bytes or _memory_of(device),
            idle_seconds=settings.runner_idle_seconds,
            max_sequences=settings.chat_max_sequences,
            max_waiting=settings.chat_max_waiting,
            max_context=settings.chat_max_context_tokens,
            timeout_seconds=settings.chat_timeout_seconds,
        )


def _memory_of(device: str) -> int:
    if device != "cpu":
        raise SettingsError("PREFTUNE_RUNNER_MEMORY_BYTES: say how much of the GPU's memory models may take")
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return int(_SHARE_OF_MEMORY * min(installed, memory_limit_bytes() or installed))
