"""Pulse of a node that does not lead: a thread that says that it lives, and hears what node 0 wants."""

import logging
import threading
import time
from types import TracebackType
from typing import Self

from core.domain.errors import DomainError, Fenced
from core.services.attempts import nodes
from core.services.attempts.claimed_job import ClaimedJob
from core.services.attempts.nodes import NodeReply
from worker.attempt.nodes.causes import DRAIN
from worker.attempt.stop_reasons import StopReason
from worker.attempt.stopping import Interrupted, StopRequests
from worker.drain import Drain
from worker.pulse import LaneBeat

_BRISK_SECONDS = 1.0
"""Between two pulses while the node waits for node 0."""

_log = logging.getLogger(__name__)


class NodePulse:
    """Pulses inside its context. A failing database is tried again at the next pulse."""

    def __init__(self, claim: ClaimedJob) -> None:
        self._claim = claim
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"pulse {claim.job_id}", daemon=True)
        self.is_waiting = True
        """The node waits for node 0, and so pulses every second."""
        self.has_parts = False
        """It has files of a checkpoint that node 0 may ask for, likewise."""
        self.reply: NodeReply | None = None
        """The newest answer."""
        self.is_fenced = False

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join()

    def _beat(self) -> None:
        usual = self._claim.backend.settings.heartbeat_seconds
        while True:
            try:
                self.reply = nodes.pulse(self._claim)
            except Fenced:
                self.is_fenced = not self._is_over.is_set()
                return
            except DomainError as error:
                _log.warning("pulse of %s failed: %s", self._claim.job_id, error.detail)
            except Exception:  # noqa: BLE001 - a pulse that fails must not be the last one
                _log.exception("pulse of %s: unexpected error", self._claim.job_id)
            if self._rests(usual):
                return

    def _rests(self, seconds: float) -> bool:
        """Wait for the next pulse; whether there is none."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if self._is_over.wait(min(left, _BRISK_SECONDS)):
                return True
            if self.is_waiting or self.has_parts:
                return False
        return self._is_over.is_set()


class NodeStops(StopRequests):
    """Requests to a node that does not lead: it stops with the attempt, which node 0 ends."""

    def __init__(self, claim: ClaimedJob, pulse: NodePulse, drain: Drain, beat: LaneBeat) -> None:
        self._claim = claim
        self._pulse = pulse
        self._drain = drain
        self._beat = beat
        self._has_told = False

    def current(self) -> None:
        """Return nothing; called repeatedly. Raises Fenced once the attempt is over, Interrupted when time is up."""
        self._beat()
        if self._pulse.is_fenced:
            raise Fenced("The attempt is over.")
        if self._drain.is_overdue:
            raise Interrupted(StopReason.DRAIN)
        if self._drain.is_begun and not self._has_told:
            try:
                nodes.report(self._claim, DRAIN)
                self._has_told = True
            except DomainError as error:
                _log.warning("node 0 of %s is not told of the drain yet: %s", self._claim.job_id, error.detail)

    def check_nodes(self) -> None:
        """Do nothing: node 0 looks at the others."""
