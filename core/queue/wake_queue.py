"""Interface of the queue: a way to wake idle workers, with no authority.

A wake-up may be lost, doubled, delayed or forged without harm: workers claim by SQL, idle ones also poll, and the
sweeper sends again.
"""

from typing import Protocol


class WakeQueue(Protocol):
    def wake(self) -> None:
        """Ask some idle worker to look for a queued job. Returns at once and never raises."""

    def check(self) -> None:
        """Check the broker; raises Unavailable when it does not answer within a few seconds."""


class NullWakeQueue:
    """Queue without a broker: workers find jobs by polling."""

    def wake(self) -> None:
        return

    def check(self) -> None:
        return
