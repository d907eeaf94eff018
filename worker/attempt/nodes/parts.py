"""Files of checkpoints that this node's trainers have written, stored when node 0 collects a checkpoint.

A few of the newest wait: node 0 leaves checkpoints out while its uploads are behind, and says which one it collects.
"""

import logging
import shutil
import threading
from collections import deque
from pathlib import Path

from core.domain.errors import DomainError, Fenced, Unavailable
from core.domain.trainer_protocol import CheckpointWritten, TrainerMessage
from core.failpoints import reach
from core.services.attempts import nodes
from core.services.attempts.claimed_job import ClaimedJob
from core.services.attempts.nodes import CheckpointName
from core.storage import keys
from core.storage.trees import upload_files
from worker.attempt.nodes.pulse import NodePulse
from worker.patience import pause_seconds

MAX_WAITING = 3
_LOOK_SECONDS = 0.2

_log = logging.getLogger(__name__)


class _Abandoned(Exception):
    """Raised to abandon an upload: the node's part is over."""


class PartRecorder:
    """Takes the messages of a node's first trainer: all but its checkpoints are node 0's to tell."""

    is_full = False
    is_empty = True

    def __init__(self, claim: ClaimedJob, pulse: NodePulse) -> None:
        self._claim = claim
        self._pulse = pulse
        self._waiting: deque[CheckpointWritten] = deque()
        self._seen: set[CheckpointName] = set()
        self._answered: CheckpointName | None = None
        self._current: CheckpointWritten | None = None
        """Being stored."""
        self._is_complete = False
        self._lock = threading.Lock()
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"parts {claim.job_id}", daemon=True)
        self._thread.start()

    def add(self, message: TrainerMessage) -> None:
        """Take over a checkpoint's directory; the oldest goes when too many wait."""
        if not isinstance(message, CheckpointWritten):
            return
        with self._lock:
            self._waiting.append(message)
            self._seen.add(_name(message))
            idle = [item for item in self._waiting if item is not self._current]
            too_many = idle[: max(0, len(idle) - MAX_WAITING)]
            for old in too_many:
                self._waiting.remove(old)
        for old in too_many:
            _remove(old)

    def write_if_due(self) -> None:
        """Do nothing: the thread stores what is wanted."""

    def write(self) -> None:
        """Do nothing: the thread stores what is wanted."""

    def stop_waiting(self) -> None:
        """Do nothing: nothing is waited for."""

    def end(self) -> None:
        """Note that the trainers are gone: no checkpoint comes any more."""
        self._is_complete = True

    def close(self) -> None:
        """Abandon unfinished uploads."""
        self._is_closed.set()
        self._thread.join()

    def _work(self) -> None:
        num_failures = 0
        while not self._is_closed.wait(_LOOK_SECONDS if not num_failures else pause_seconds(num_failures)):
            reply = self._pulse.reply
            self._pulse.has_parts = bool(self._waiting)
            if reply is None or reply.collects is None or reply.collects == self._answered:
                continue
            try:
                self._answer(reply.collects)
                num_failures = 0
            except (Fenced, _Abandoned):  # the pulse tells the supervisor of a fence
                return
            except Unavailable as error:
                _log.warning("files of a checkpoint of %s: %s; trying again", self._claim.job_id, error.detail)
                num_failures += 1
            except (DomainError, OSError, ValueError):
                _log.exception("files of a checkpoint of %s are left out", self._claim.job_id)
                self._tell_missing(reply.collects)

    def _answer(self, wanted: CheckpointName) -> None:
        with self._lock:
            found = next((item for item in self._waiting if _name(item) == wanted), None)
            self._current = found
            is_gone = found is None and (wanted in self._seen or self._is_complete)
        if found is None:
            if is_gone:
                self._tell_missing(wanted)
            return
        claim = self._claim
        prefix = keys.checkpoint_prefix(claim.project_id, claim.job_id, claim.attempt_name, found.stage, found.step)
        files = upload_files(claim.backend.store, prefix, Path(found.directory), between_files=self._check)
        reach("part.stored")
        nodes.store_part(claim, wanted, files)
        self._answered = wanted
        self._let_go_until(found)

    def _tell_missing(self, wanted: CheckpointName) -> None:
        try:
            nodes.store_part(self._claim, wanted, None)
            self._answered = wanted
        except DomainError as error:
            _log.warning("node 0 of %s is not told of a missing checkpoint: %s", self._claim.job_id, error.detail)

    def _let_go_until(self, item: CheckpointWritten) -> None:
        """Remove the directories of a checkpoint and of those before it."""
        with self._lock:
            number = list(self._waiting).index(item) + 1 if item in self._waiting else 0
            done = [self._waiting.popleft() for _ in range(number)]
        for old in done:
            _remove(old)

    def _check(self) -> None:
        if self._is_closed.is_set():
            raise _Abandoned


def _name(message: CheckpointWritten) -> CheckpointName:
    return Path(message.directory).name


def _remove(item: CheckpointWritten) -> None:
    shutil.rmtree(item.directory, ignore_errors=True)
