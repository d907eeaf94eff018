"""Threads that say that an attempt goes on: the lead's renews its lease and watches over the other nodes."""

import logging
import threading
import time
from types import TracebackType
from typing import Self

from core.domain.errors import DomainError, Fenced
from core.services.attempts import lifecycle, nodes
from core.services.attempts.claimed_job import ClaimedJob
from core.services.attempts.lifecycle import HeartbeatReply
from core.services.operations.sweep import Lease, LeaseWatch

_log = logging.getLogger(__name__)


class AttemptPulse:
    """A thread that says inside its context that an attempt goes on. What fails is tried again at the next beat."""

    def __init__(self, claim: ClaimedJob, name: str) -> None:
        self._claim = claim
        self._name = name
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"{name} {claim.job_id}", daemon=True)
        self.is_fenced = False
        """The attempt has ended, or is another worker's."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join()

    def _beat(self) -> None:
        """Say it once. Raises Fenced where the attempt is over, and DomainError."""
        raise NotImplementedError

    def _rests(self, seconds: float) -> bool:
        """Wait for the next beat; whether there is none."""
        return self._is_over.wait(seconds)

    def _run(self) -> None:
        while True:
            try:
                self._beat()
            except Fenced:
                self.is_fenced = not self._is_over.is_set()
                return
            except DomainError as error:
                _log.warning("%s of %s failed: %s", self._name, self._claim.job_id, error.detail)
            except Exception:  # noqa: BLE001 - a beat that fails must not be the last one
                _log.exception("%s of %s: unexpected error", self._name, self._claim.job_id)
            if self._rests(self._claim.backend.settings.heartbeat_seconds):
                return


class Heartbeat(AttemptPulse):
    """Renews the lease, hears the user's requests, and ends an attempt one of whose nodes falls silent."""

    def __init__(self, claim: ClaimedJob) -> None:
        super().__init__(claim, "heartbeat")
        self.reply: HeartbeatReply | None = None
        """The newest answer."""
        self._nodes = LeaseWatch(claim.backend.settings.lease_seconds)

    def _beat(self) -> None:
        self.reply = lifecycle.heartbeat(self._claim)
        self._watch(self.reply)

    def _watch(self, reply: HeartbeatReply) -> None:
        """End the attempt when a node was silent for the length of a lease. Raises Fenced then, and Unavailable."""
        by_lease = {
            Lease(job_id=self._claim.job_id, attempt=other.node, heartbeat_seq=other.pulse_seq): other
            for other in reply.others
        }
        for lease in self._nodes.observe(dict.fromkeys(by_lease, True), time.monotonic()):
            nodes.lose(self._claim, by_lease[lease])
            raise Fenced("Another node of the attempt is lost.")
