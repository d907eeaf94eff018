"""Pulse of a node that does not lead: a thread that says that it lives, and hears what node 0 wants."""

import logging
import time

from core.domain.errors import DomainError, Fenced
from core.services.attempts import nodes
from core.services.attempts.claimed_job import ClaimedJob
from core.services.attempts.nodes import NodeReply
from worker.attempt.heartbeat import AttemptPulse
from worker.attempt.nodes.causes import DRAIN
from worker.attempt.stop_reasons import StopReason
from worker.attempt.stopping import Interrupted, StopRequests
from worker.drain import Drain
from worker.pulse import LaneBeat

_BRISK_SECONDS = 1.0
"""Between two pulses while the node waits for node 0."""

_log = logging.getLogger(__name__)


class NodePulse(AttemptPulse):
    """Says that this node lives, and hears what node 0 wants."""

    def __init__(self, claim: ClaimedJob) -> None:
        super().__init__(claim, "pulse")
        self.is_waiting = True
        """The node waits for node 0, and so pulses every second."""
        self.has_parts = False
        """It has files of a checkpoint that node 0 may ask for, likewise."""
        self.reply: NodeReply | None = None
        """The newest answer."""

    def _beat(self) -> None:
        self.reply = nodes.pulse(self._claim)

    def _rests(self, seconds: float) -> bool:
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
