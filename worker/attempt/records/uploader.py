"""Uploads of one attempt by one background thread, so that the trainer never waits for the store.

Checkpoints are not queued: while one is on its way the newest other one waits, and replaces an older one that waits.
An object exists once its row is committed, which the fence allows only to the attempt that holds the job.
"""

import logging
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from core.domain.errors import DomainError, Fenced, Unavailable
from core.domain.jobs.job_state import Stage
from core.domain.trainer_protocol import CheckpointWritten, StageOutputWritten, TrainerEvent
from core.failpoints import reach
from core.services.attempts import checkpoints, nodes, recording
from core.services.attempts.checkpoints import NewCheckpoint, NewStageOutput
from core.services.attempts.claimed_job import ClaimedJob
from core.storage import keys
from core.storage.trees import UploadedTree, store_manifest, upload_files, upload_tree, write_sums
from worker.patience import pause_seconds

_MAX_WAITING_OUTPUTS = 8
_COLLECT_SECONDS = 0.2
"""Between two looks at what the other nodes have stored."""
_COLLECT_LEASES = 10
"""Time limit for them, in leases."""

_log = logging.getLogger(__name__)


class _Abandoned(Exception):
    """Raised to abandon an upload that is no longer needed."""


class _LeftOut(Exception):
    """Raised for a checkpoint of which another node has no files any more."""


class Uploader:
    def __init__(self, claim: ClaimedJob) -> None:
        self._claim = claim
        self._outputs: deque[StageOutputWritten] = deque(maxlen=_MAX_WAITING_OUTPUTS)
        self._checkpoint: CheckpointWritten | None = None
        self._is_busy = False
        self._is_closed = False
        self._has_told_of_outage = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name=f"uploads {claim.job_id}", daemon=True)
        self._thread.start()

    def offer_checkpoint(self, message: CheckpointWritten) -> None:
        """Take over the directory: it is deleted once uploaded, or once a newer one has replaced it."""
        with self._changed:
            replaced, self._checkpoint = self._checkpoint, message
            self._changed.notify_all()
        reach("upload.offered")
        if replaced is not None:
            _log.warning("uploads are behind: the checkpoint of step %d is left out", replaced.step)
            _remove(replaced)

    def offer_output(self, message: StageOutputWritten) -> None:
        with self._changed:
            self._outputs.append(message)
            self._changed.notify_all()

    def wait(self, is_over: Callable[[], bool]) -> bool:
        """Wait until everything offered is safe; False when `is_over` became true first."""
        while True:
            with self._changed:
                if not self._is_busy and self._next_is_nothing():
                    return True
                if not self._thread.is_alive() or is_over():
                    return False
                self._changed.wait(0.1)

    def close(self) -> None:
        """Abandon unfinished uploads."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join()

    def _next_is_nothing(self) -> bool:
        return self._checkpoint is None and not self._outputs

    def _work(self) -> None:
        try:
            while (item := self._take()) is not None:
                self._upload_patiently(item)
        except (Fenced, _Abandoned):  # the heartbeat tells the supervisor of a fence
            return

    def _take(self) -> CheckpointWritten | StageOutputWritten | None:
        with self._changed:
            self._is_busy = False
            self._changed.notify_all()
            while self._next_is_nothing() and not self._is_closed:
                self._changed.wait()
            if self._is_closed:
                return None
            self._is_busy = True
            if self._outputs:
                return self._outputs.popleft()
            item, self._checkpoint = self._checkpoint, None
            return item

    def _upload_patiently(self, item: CheckpointWritten | StageOutputWritten) -> None:
        num_failures = 0
        while True:
            try:
                self._upload(item)
                break
            except Unavailable as error:
                self._tell_of_outage(error)
            except _LeftOut:
                _log.warning("%s is not whole on all nodes, and is left out", Path(item.directory).name)
                break
            except Fenced:
                raise
            except (DomainError, OSError, ValueError):
                _log.exception("an upload of %s failed and is left out", self._claim.job_id)
                break
            if self._is_replaced(item, pause_seconds(num_failures)):
                break
            num_failures += 1
        if isinstance(item, CheckpointWritten):
            _remove(item)
            reach("upload.directory_removed")

    def _is_replaced(self, item: CheckpointWritten | StageOutputWritten, seconds: float) -> bool:
        """Wait before the next try; True when a newer checkpoint is there instead."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while (left := deadline - time.monotonic()) > 0:
                if self._is_closed:
                    raise _Abandoned
                if isinstance(item, CheckpointWritten) and self._checkpoint is not None:
                    return True
                self._changed.wait(left)
        return False

    def _upload(self, item: CheckpointWritten | StageOutputWritten) -> None:
        claim, stage = self._claim, Stage(item.stage)
        if isinstance(item, CheckpointWritten):
            self._upload_checkpoint(item, stage)
            return
        prefix = keys.stage_output_prefix(claim.project_id, claim.job_id, claim.attempt_name, item.digest)
        uploaded = self._upload_tree(prefix, item.directory)
        checkpoints.commit_stage_output(
            claim,
            NewStageOutput(stage=stage, digest=item.digest, tree=uploaded, num_bytes=uploaded.num_bytes),
        )

    def _upload_checkpoint(self, item: CheckpointWritten, stage: Stage) -> None:
        """Upload what a resume needs first, then the policy as users load it."""
        claim = self._claim
        prefix = keys.checkpoint_prefix(claim.project_id, claim.job_id, claim.attempt_name, stage.value, item.step)
        uploaded = (
            self._upload_shards(prefix, item) if claim.place.has_others else self._upload_tree(prefix, item.directory)
        )
        checkpoint_id = checkpoints.commit_checkpoint(
            claim,
            NewCheckpoint(stage=stage, step=item.step, tree=uploaded, num_bytes=uploaded.num_bytes),
        )
        if item.policy_directory is None:
            return
        write_sums(Path(item.policy_directory))
        prefix = keys.policy_prefix(claim.project_id, claim.job_id, claim.attempt_name, stage.value, item.step)
        policy = self._upload_tree(prefix, item.policy_directory)
        checkpoints.commit_policy(claim, checkpoint_id, policy, policy.num_bytes)

    def _upload_shards(self, prefix: str, item: CheckpointWritten) -> UploadedTree:
        """Upload this node's files, wait for those of the others, and complete the checkpoint.

        Raises:
            _LeftOut: a node has given it up for a newer one.
        """
        claim, name = self._claim, Path(item.directory).name
        nodes.collect(claim, name)
        files = upload_files(claim.backend.store, prefix, Path(item.directory), between_files=self._check_wanted)
        deadline = time.monotonic() + _COLLECT_LEASES * claim.backend.settings.lease_seconds
        while True:
            parts = [part for part in nodes.list_parts(claim, prefix) if part.name == name]
            if any(part.files is None for part in parts) or time.monotonic() > deadline:
                raise _LeftOut
            if len(parts) == claim.place.num_nodes - 1:
                break
            self._check_wanted()
            time.sleep(_COLLECT_SECONDS)
        theirs = [file for part in parts for file in part.files or ()]
        return store_manifest(claim.backend.store, prefix, sorted([*files, *theirs], key=lambda file: file.path))

    def _upload_tree(self, prefix: str, directory: str) -> UploadedTree:
        return upload_tree(self._claim.backend.store, prefix, Path(directory), between_files=self._check_wanted)

    def _check_wanted(self) -> None:
        if self._is_closed:
            raise _Abandoned

    def _tell_of_outage(self, error: Unavailable) -> None:
        _log.warning("upload of %s: %s; trying again", self._claim.job_id, error.detail)
        if self._has_told_of_outage:
            return
        self._has_told_of_outage = True
        message = f"A checkpoint cannot be stored now; training continues: {error.detail}"
        event = TrainerEvent(level="warning", kind="upload_delayed", message=message)
        try:
            recording.record_events(self._claim, [event])
        except Unavailable:
            _log.warning("the event about it cannot be stored either")


def _remove(item: CheckpointWritten) -> None:
    for directory in (item.directory, item.policy_directory):
        if directory is not None:
            shutil.rmtree(directory, ignore_errors=True)
