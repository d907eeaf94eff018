"""Workers that are alive: what each trains on, as it says itself."""

from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy.orm import Session

from core.database.repositories import measurements
from core.services.transactions import writes

ALIVE_SECONDS = 60.0
"""A worker that has said nothing for this time is not alive."""
BEAT_SECONDS = 10.0
"""Longest time between two words of a worker."""
FORGOTTEN_SECONDS = 24 * 3600.0
"""Rows of workers that ended without a word are deleted after this time."""


@dataclass(frozen=True, kw_only=True)
class WorkerFacts:
    name: str
    host: str
    device_class: str
    trains: bool
    memory_bytes: int | None
    facts: dict[str, Any] | None = None
    """What else it says of itself, for operators (`core.services.operations.presence`)."""


@dataclass(frozen=True, kw_only=True)
class WorkerClass:
    """Workers that are alive and of one class."""

    device_class: str
    num_workers: int
    memory_bytes: int | None
    """The least that one of them has; None where one does not know."""


@writes
def note(session: Session, facts: WorkerFacts) -> None:
    """Record that the worker is alive."""
    measurements.note_worker(session, asdict(facts))


@writes
def leave(session: Session, name: str) -> None:
    """Record that the worker has ended."""
    measurements.delete_worker(session, name)


@writes
def forget_silent(session: Session) -> None:
    measurements.delete_silent_workers(session, FORGOTTEN_SECONDS)


def list_classes(session: Session) -> list[WorkerClass]:
    """Return the classes of workers that train, that with the most workers first."""
    groups: dict[str, list[int | None]] = defaultdict(list)
    for row in measurements.list_training_workers(session, ALIVE_SECONDS):
        groups[row.device_class].append(row.memory_bytes)
    found = [
        WorkerClass(
            device_class=name,
            num_workers=len(sizes),
            memory_bytes=None if None in sizes else min(size for size in sizes if size is not None),
        )
        for name, sizes in groups.items()
    ]
    return sorted(found, key=lambda item: (-item.num_workers, item.device_class))
