"""Dialogue with one trainer process, until it is gone and all its messages are recorded."""

import math
import queue
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from core.domain.jobs.event_kinds import CHECKPOINT_UNUSABLE
from core.domain.trainer_protocol import (
    CheckpointWritten,
    Done,
    Failed,
    Hello,
    Listening,
    StageOutputWritten,
    Stopped,
    TrainerEvent,
    TrainerMessage,
)
from worker.attempt.stopping import Stopper, StopRequests
from worker.attempt.trainer_process import Ended, TrainerProcess

_TICK_SECONDS = 0.1


class MessageSink(Protocol):
    """Whoever keeps what a trainer says (`worker.attempt.records.recorder`, `worker.attempt.nodes.parts`)."""

    @property
    def is_full(self) -> bool: ...
    @property
    def is_empty(self) -> bool: ...
    def add(self, message: TrainerMessage) -> None: ...
    def write_if_due(self) -> None: ...
    def write(self) -> None: ...
    def stop_waiting(self) -> None: ...


class StrangeDirectory(Exception):
    """Raised when a trainer announced a directory outside its own work directory."""


@dataclass(kw_only=True)
class TrainerDialogue:
    process: TrainerProcess
    recorder: MessageSink
    stopper: Stopper
    stop_requests: StopRequests
    work_dir: Path
    grace_seconds: float
    """After its last word a trainer has so long to go."""
    on_listening: Callable[[int], None] = lambda port: None
    """Called when other nodes can meet this one's trainers."""

    last: Done | Stopped | Failed | None = None
    hello: Hello | None = None
    hello_at: float | None = None
    """Time of the trainer's first message, by the monotonic clock."""
    unusable_checkpoint: str | None = None
    """Why the trainer cannot go on from the checkpoint it was given."""
    _last_said_at: float = field(default=math.inf, init=False)

    def follow(self) -> Ended:
        """Run the dialogue.

        Raises:
            Fenced: the attempt is over.
            Interrupted: the time to record the rest is over.
            NodeFailed: another node of the attempt has ended its part.
        """
        while True:
            request = self.stop_requests.current()
            if self.last is None:
                self.stop_requests.check_nodes()
            self.stopper.update(request, is_draining=self.stop_requests.is_draining)
            if request is not None:
                self.recorder.stop_waiting()
            self.recorder.write_if_due()
            if time.monotonic() - self._last_said_at > self.grace_seconds:
                self.process.kill()
            item = self._next()
            if isinstance(item, Ended):
                self._write_rest()
                return item
            if item is not None:
                self._hear(item)

    def _next(self) -> TrainerMessage | Ended | None:
        if self.recorder.is_full:
            time.sleep(_TICK_SECONDS)
            return None
        try:
            return self.process.inbox.get(timeout=_TICK_SECONDS)
        except queue.Empty:
            return None

    def _hear(self, message: TrainerMessage) -> None:
        match message:
            case Done() | Stopped() | Failed():
                self.last = message
                self._last_said_at = time.monotonic()
                if isinstance(message, Failed):
                    self.recorder.add(message)
            case Hello():
                self.hello, self.hello_at = message, time.monotonic()
            case Listening():
                self.on_listening(message.port)
            case TrainerEvent(kind=kind) if kind == CHECKPOINT_UNUSABLE:
                self.unusable_checkpoint = message.message
            case CheckpointWritten() | StageOutputWritten():
                require_inside(self.work_dir, message.directory)
                if isinstance(message, CheckpointWritten) and message.policy_directory is not None:
                    require_inside(self.work_dir, message.policy_directory)
                self.recorder.add(message)
            case _:
                self.recorder.add(message)

    def _write_rest(self) -> None:
        self.recorder.stop_waiting()
        while not self.recorder.is_empty:
            self.stop_requests.check_overdue()
            self.recorder.write()
            if not self.recorder.is_empty:
                time.sleep(_TICK_SECONDS)


def require_inside(work_dir: Path, directory: str) -> Path:
    """Return the directory, resolved. Raises StrangeDirectory."""
    path = Path(directory).resolve()
    if not path.is_relative_to(work_dir) or not path.is_dir():
        raise StrangeDirectory("The trainer announced a directory that is not its own.")
    return path
