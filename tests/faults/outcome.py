"""What one fault run came to, and how many of them a part of `make test-faults` adds up."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from faults.world import Grounds


@dataclass
class Outcome:
    seed: int
    setting: str
    """Which database, store, point … it was."""
    count: int
    """In the unit of its row: kills, races, operations."""
    violations: list[str]
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One row of the table of faults."""

    name: str
    unit: str
    goal: int
    run: Callable[[Grounds, int], Outcome]
    """With a seed that determines what is determined: settings, moments, victims."""
    num_parallel: int = 4
    num_settings: int | None = None
    """Where the seeds number settings, each to be run once: how many there are."""

    def is_over(self, seed: int) -> bool:
        return self.num_settings is not None and seed >= self.num_settings
