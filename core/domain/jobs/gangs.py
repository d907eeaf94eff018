"""Gangs: the workers that train one job together, a node each."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Seat:
    """Facts of a worker that takes part in jobs on several nodes."""

    member: str
    """Random, of this process."""
    address: str
    """Address at which other nodes reach it."""
    hold_seconds: float
    """Time that it waits at first for the other nodes of a job."""


@dataclass(frozen=True)
class Waiting:
    """Answer to a worker that waits for the other nodes of a job: it asks again in a second."""

    is_new: bool
    """It has just joined."""
