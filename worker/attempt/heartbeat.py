"""Thread that renews an attempt's lease, receives the user's requests, and watches over the attempt's other nodes."""

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


class Heartbeat:
    """Renews the lease inside its context. A failing database is tried again at the next beat."""

    def __init__(self, claim: ClaimedJob) -> None:
        self._claim = claim
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"heartbeat {claim.job_id}", daemon=True)
        self.reply: HeartbeatReply | None = None
        """The newest answer."""
        self.is_fenced = False
        self._nodes = LeaseWatch(claim.backend.settings.lease_seconds)

    def _watch(self, reply: HeartbeatReply) -> None:
        """End the attempt when a node was silent for the length of a lease. Raises Fenced then, and Unavailable."""
        by_lease = {
            Lease(job_id=self._claim.job_id, attempt=other.node, heartbeat_seq=other.pulse_seq): other
            for other in reply.others
        }
        for lease in self._nodes.observe(dict.fromkeys(by_lease, True), time.monotonic()):
            nodes.lose(self._claim, by_lease[lease])
            raise Fenced("Another node of the attempt is lost.")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join()

    def _beat(self) -> None:
        while True:
            try:
                self.reply = lifecycle.heartbeat(self._claim)
                self._watch(self.reply)
            except Fenced:
                self.is_fenced = not self._is_over.is_set()
                return
            except DomainError as error:
                _log.warning("heartbeat of %s failed: %s", self._claim.job_id, error.detail)
            except Exception:  # noqa: BLE001 - a beat that fails must not be the last one
                _log.exception("heartbeat of %s: unexpected error", self._claim.job_id)
            if self._is_over.wait(self._claim.backend.settings.heartbeat_seconds):
                return
