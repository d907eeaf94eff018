"""Stopping of a trainer before its end: what is requested, in which mode, and escalation when it does not react."""

import signal
import time

from core.domain.errors import Fenced
from core.domain.jobs.job_state import Desired
from core.domain.trainer_protocol import Stop, StopMode
from core.services.attempts.nodes import OtherNode
from worker.attempt.heartbeat import Heartbeat
from worker.attempt.nodes.causes import NodeFailed, has_failed, is_cause, is_draining
from worker.attempt.stop_reasons import StopReason
from worker.attempt.trainer_process import TrainerProcess
from worker.drain import Drain
from worker.pulse import LaneBeat

_LOOK_SECONDS = 0.1
_CAUSE_SECONDS = 10.0
"""Time in which what another node has seen of a failure may turn out to be a failure of this one."""
_PULSES_OF_LIFE = 3
"""A node that has pulsed so often since a failure has had the time to report one of its own."""


_MODES: dict[StopReason, StopMode] = {
    StopReason.CANCEL: "abandon",
    StopReason.SAVE: "save",
    StopReason.PAUSE: "checkpoint",
    StopReason.DRAIN: "checkpoint",
    StopReason.RUNTIME: "checkpoint",
}


class Interrupted(Exception):
    """Raised when the attempt is to stop here."""

    def __init__(self, reason: StopReason) -> None:
        super().__init__(reason.value)
        self.reason = reason


class StopRequests:
    """Current requests of user and operator for this attempt."""

    def __init__(self, heartbeat: Heartbeat, drain: Drain, beat: LaneBeat) -> None:
        self._heartbeat = heartbeat
        self._drain = drain
        self._beat = beat
        self._failed_at: float | None = None
        """Time at which another node was first seen to have failed."""

    def current(self) -> StopReason | None:
        """Return the current request; called repeatedly. Raises Fenced once another attempt holds the job."""
        self._beat()
        if self._heartbeat.is_fenced:
            raise Fenced("Another attempt holds the job.")
        reply = self._heartbeat.reply
        if reply is not None and reply.desired is Desired.CANCEL:
            return StopReason.SAVE if reply.saves_on_cancel else StopReason.CANCEL
        if self._drain.is_begun or any(is_draining(other) for other in self._others):
            return StopReason.DRAIN
        if reply is not None and reply.desired is Desired.PAUSE:
            return StopReason.PAUSE
        if reply is not None and reply.remaining_runtime_seconds is not None and reply.remaining_runtime_seconds <= 0:
            return StopReason.RUNTIME
        return None

    def check(self) -> None:
        """Raise Interrupted when the attempt is to stop, and Fenced."""
        reason = self.current()
        if reason is not None:
            raise Interrupted(reason)

    def check_staging(self) -> None:
        """Raise like `check`, and NodeFailed when another node has ended its part."""
        self.check()
        self.check_nodes()

    def check_nodes(self) -> None:
        """Raise NodeFailed when another node of the attempt has ended its part."""
        failed = [other for other in self._others if has_failed(other)]
        if not failed:
            return
        self._failed_at = self._failed_at or time.monotonic()
        causes = [other for other in failed if is_cause(other)]
        if causes or time.monotonic() - self._failed_at > _CAUSE_SECONDS:
            raise NodeFailed((causes or failed)[0])

    def await_others(self) -> tuple[OtherNode, ...]:
        """Wait until every other node has reported its end or is known to live; return them as they are then.

        Raises:
            Fenced: one has stopped responding, and the attempt is over.
        """
        before = {other.node: other.pulse_seq for other in self._others}
        while True:
            self.current()
            others = self._others
            waited_for = [
                other
                for other in others
                if not has_failed(other) and other.pulse_seq < before.get(other.node, 0) + _PULSES_OF_LIFE
            ]
            if others and (not waited_for or any(is_cause(other) for other in others)):
                return others
            time.sleep(_LOOK_SECONDS)

    def failed_nodes(self) -> list[OtherNode]:
        """Return the other nodes that have reported a failure so far."""
        return [other for other in self._others if has_failed(other)]

    @property
    def _others(self) -> tuple[OtherNode, ...]:
        reply = self._heartbeat.reply
        return () if reply is None else reply.others

    def check_overdue(self) -> None:
        """Raise like `check` at the end of an attempt, which a stop request does not hurry before its deadline."""
        if self.current() is StopReason.CANCEL:
            raise Interrupted(StopReason.CANCEL)
        if self._drain.is_overdue:
            raise Interrupted(StopReason.DRAIN)

    @property
    def is_draining(self) -> bool:
        return self._drain.is_begun


class Stopper:
    """Asks the trainer to stop; then SIGTERM, then SIGKILL to its group. A later, different request is passed on."""

    def __init__(self, process: TrainerProcess, grace_seconds: float) -> None:
        self._process = process
        self._grace_seconds = grace_seconds
        self._asked_at = 0.0
        self._is_terminated = False
        self._is_hurried = False
        self.reason: StopReason | None = None
        """What the trainer was last asked for."""
        self.has_killed = False
        self._has_terminated = False

    def update(self, request: StopReason | None, *, is_draining: bool) -> None:
        """Send what is due; to be called repeatedly."""
        if request is not None and request is not self.reason:
            self._ask(request)
        if self.reason is None:
            return
        if is_draining and not self._is_hurried:
            self._is_hurried = True
            self._asked_at = time.monotonic()
        waited = time.monotonic() - self._asked_at
        # Evaluating and saving a policy takes longer than a step.
        grace = self._grace_seconds * (10 if self.reason is StopReason.SAVE and not is_draining else 1)
        if waited > grace and not self.has_killed:
            self.has_killed = True
            self._process.kill()
        elif waited > grace / 4 and not self._is_terminated:
            self._is_terminated = self._has_terminated = True
            self._process.terminate()

    def has_ended_it(self, returncode: int) -> bool:
        """Whether our signal ended it: a trainer that is loading libraries cannot catch SIGTERM yet."""
        return self.has_killed or (self._has_terminated and returncode == -signal.SIGTERM)

    def _ask(self, request: StopReason) -> None:
        if self.reason is None or _MODES[request] != _MODES[self.reason]:
            self._asked_at = time.monotonic()
            self._is_terminated = False
            self._process.send(Stop(mode=_MODES[request]))
        self.reason = request
