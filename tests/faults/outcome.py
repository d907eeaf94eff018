"""What one fault run came to, and how many of them a part of `make test-faults` adds up."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Self

from faults.grounds import Grounds
from faults.trainers import TOY, Trainer


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
    run: Callable[[Grounds, int, Trainer], Outcome]
    """With a seed that determines what is determined: settings, moments, victims."""
    num_parallel: int = 4
    num_settings: int | None = None
    """Where the seeds number settings, each to be run once: how many there are."""
    trainer: Trainer = TOY
    num_apis: int = 1
    find_lack: Callable[[], str | None] = lambda: None
    """Says why it cannot be run here, if it cannot."""

    def is_over(self, seed: int) -> bool:
        return self.num_settings is not None and seed >= self.num_settings

    def with_trainer(self, trainer: Trainer, goal: int) -> Self:
        """The same faults, two runs at once, and the results apart."""
        return replace(self, name=f"{trainer.name}-{self.name}", goal=goal, trainer=trainer, num_parallel=2)

    def with_two_apis(self, goal: int) -> Self:
        """The same faults with two API processes behind one address, and the results apart."""
        return replace(self, name=f"two-apis-{self.name}", goal=goal, num_apis=2, num_parallel=2)
