"""Verified download of stored results: checkpoints to resume from, stage outputs to reuse."""

import logging
import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from core.domain.errors import Unavailable
from core.domain.jobs.event_kinds import WAITING_FOR_STORE
from core.domain.jobs.stored_files import StoredTree
from core.domain.trainer_protocol import TrainerEvent
from core.failpoints import reach
from core.services.attempts import checkpoints, lifecycle, recording
from core.services.attempts.claimed_job import ClaimedJob
from core.services.attempts.lifecycle import ResumeFrom
from core.services.backend import Backend
from core.storage.object_store import StoreUnavailable
from core.storage.trees import TreeDamaged, fetch_tree
from worker.patience import patiently

_OUTAGE_LEASES = 10
_MAX_CHECKPOINTS = 1000

_STAGES_WITH_CURVE = ("sft", "dpo", "reward")

Result = TypeVar("Result")

_log = logging.getLogger(__name__)


def outage_seconds(claim: ClaimedJob) -> float:
    """Return how long an attempt waits for the store before releasing the job: ten minutes by default."""
    return _OUTAGE_LEASES * claim.backend.settings.lease_seconds


@dataclass(frozen=True, kw_only=True)
class Fetcher:
    claim: ClaimedJob
    work_dir: Path
    check: Callable[[], None]
    """Called between files and tries; raises when the attempt is to stop."""
    _has_told: threading.Event = field(default_factory=threading.Event)
    """Set once the job's events say that the attempt waits for the store."""

    @property
    def backend(self) -> Backend:
        return self.claim.backend

    def fetch_resume_point(self) -> tuple[ResumeFrom, Path] | None:
        """Fetch the newest intact checkpoint and mark damaged ones. None: start from the beginning."""
        for _ in range(_MAX_CHECKPOINTS):
            resume = self._patiently(lambda: lifecycle.begin(self.claim))
            if resume is None:
                return None
            try:
                return resume, self._fetch_patiently(resume.tree, self.work_dir / "resume")
            except TreeDamaged as damage:
                self.set_aside(resume, str(damage))
        raise AssertionError("more damaged checkpoints than a job can have")

    def set_aside(self, resume: ResumeFrom, detail: str) -> None:
        _log.error("%s: checkpoint %s is damaged: %s", self.claim.job_id, resume.checkpoint_id, detail)
        self._patiently(lambda: checkpoints.mark_checkpoint_corrupt(self.claim, resume.checkpoint_id, detail))

    def fetch_output(self, stage: str, digest: str) -> tuple[str, Path] | None:
        """Fetch a finished stage's output as (job that made it, directory); None: compute it."""
        found = self._patiently(lambda: checkpoints.find_stage_output(self.claim, digest))
        if found is None or (found.job_id == self.claim.job_id and stage in _STAGES_WITH_CURVE):
            # This attempt has begun before that stage, and so has taken back its curve: it must be drawn again.
            return None
        target = self.work_dir / "reuse" / digest
        try:
            self._fetch(found.tree, target)
        except TreeDamaged as damage:
            _log.error("stage output %s of %s is damaged: %s", digest, found.job_id, damage)
            self._patiently(lambda: checkpoints.drop_stage_output(self.claim, digest))
            return None
        except Unavailable as error:  # computing it is better than waiting
            _log.warning("stage output %s cannot be fetched: %s", digest, error.detail)
            return None
        reach("stage_output.fetched")
        return found.job_id, target

    def fetch_checkpoint(self, tree: StoredTree, target: Path) -> None:
        """Fetch the checkpoint that another node goes on from, too. Raises TreeDamaged."""
        self._fetch_patiently(tree, target)

    def fetch_policy(self, tree: StoredTree) -> Path:
        """Fetch a policy that an earlier job published. Raises TreeDamaged."""
        return self._fetch_patiently(tree, self.work_dir / "base")

    def _fetch_patiently(self, tree: StoredTree, target: Path) -> Path:
        self._patiently(lambda: self._fetch(tree, target))
        return target

    def _fetch(self, tree: StoredTree, target: Path) -> None:
        shutil.rmtree(target, ignore_errors=True)
        fetch_tree(self.backend.store, tree, target, between_files=self.check)

    def patiently(
        self, work: Callable[[], Result], on_failure: Callable[[Unavailable, int], None] | None = None
    ) -> Result:
        """Try again while database or store are away, for `outage_seconds`. Raises what `check` does, Unavailable."""
        return patiently(work, between_tries=self.check, max_seconds=outage_seconds(self.claim), on_failure=on_failure)

    def _patiently(self, work: Callable[[], Result]) -> Result:
        return self.patiently(work, self._tell_of_waiting)

    def _tell_of_waiting(self, error: Unavailable, num_before: int) -> None:
        """Add an event at the second failure of the store in a row, once for an attempt."""
        if not isinstance(error, StoreUnavailable) or num_before < 1 or self._has_told.is_set():
            return
        self._has_told.set()
        minutes = outage_seconds(self.claim) / 60
        message = (
            f"Waits for the object store: {error.detail.rstrip('.')}. It is tried again for {minutes:.0f} minutes; the "
            "worker's log and `preftune doctor` say what it answers."
        )
        with suppress(Unavailable):
            event = TrainerEvent(level="warning", kind=WAITING_FOR_STORE, message=message)
            recording.record_events(self.claim, [event])
