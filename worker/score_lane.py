"""The light lane: a thread of the worker that scores, one request at a time, in a process of its own.

It shares nothing with training but the machine: no slot, no queue, no claim. A request that is not done when the lane
ends is found by another one, or by this one's successor.
"""

import json
import logging
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from core.base_models.directory import get_base_model
from core.domain.errors import DomainError, Unavailable
from core.services import scores
from core.services.attempts import StoredTree
from core.services.backend import Backend
from core.services.scores import ScoreClaim
from core.storage.trees import TreeDamaged, fetch_tree
from worker.drain import Drain
from worker.scratch import WorkerScratch
from worker.trainer_process import trainer_environment

SCORER_COMMAND = (sys.executable, "-P", "-m", "worker.scorer")
POLL_SECONDS = 0.5
MAX_SECONDS = 1800.0
"""Of one request; it is bounded in rows and bytes."""
_TICK_SECONDS = 0.1
_KEPT_LOG_CHARS = 2000

_log = logging.getLogger(__name__)


class _Ending(Exception):
    """The worker drains, or another lane has the request."""


class _CannotScore(Exception):
    """The text is for the user."""


class ScoreLane:
    def __init__(
        self,
        backend: Backend,
        drain: Drain,
        scratch: WorkerScratch,
        num_threads: int,
        command: Sequence[str] = SCORER_COMMAND,
    ) -> None:
        self._backend = backend
        self._drain = drain
        self._scratch = scratch
        self._num_threads = num_threads
        self._command = command
        self._thread = threading.Thread(target=self._run, name="scores", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        while not self._drain.is_begun:
            try:
                is_idle = not self._do_next()
            except Unavailable as error:
                _log.warning("cannot look for scores to compute: %s", error.detail)
                is_idle = True
            except Exception:  # noqa: BLE001 - the edge of the lane: the next request must get its turn
                _log.exception("scoring met an unexpected error; the request's lease will run out")
                is_idle = True
            if is_idle:
                self._drain.wait(random.uniform(0.75, 1.25) * POLL_SECONDS)

    def _do_next(self) -> bool:
        claim = scores.claim(self._backend, self._lease_seconds)
        if claim is None:
            return False
        with self._scratch.directory(claim.id) as work_dir:
            try:
                scores.finish(self._backend, claim, self._score(claim, work_dir))
            except _CannotScore as reason:
                scores.fail(self._backend, claim.id, claim.token, str(reason))
            except _Ending:
                scores.give_back(self._backend, claim)
        return True

    @property
    def _lease_seconds(self) -> float:
        return self._backend.settings.lease_seconds

    def _score(self, claim: ScoreClaim, work_dir: Path) -> list[dict[str, Any]]:
        check = _Renewal(self._backend, claim, self._drain)
        task = {
            "spec": claim.spec,
            "base_model_dir": str(self._base_model(claim, work_dir, check)),
            "policy_dir": str(self._fetch(claim.policy, work_dir / "policy", check)),
            "sft_dir": None if claim.sft is None else str(self._fetch(claim.sft, work_dir / "sft", check)),
            "is_pairs": claim.is_pairs,
            "rows": claim.rows,
            "num_threads": self._num_threads,
            "submitted_at": claim.submitted_at.isoformat(),
        }
        (work_dir / "scoring.json").write_text(json.dumps(task), encoding="utf-8")
        self._run_scorer(work_dir, check)
        results: list[dict[str, Any]] = json.loads((work_dir / "results.json").read_text(encoding="utf-8"))
        return results

    def _base_model(self, claim: ScoreClaim, work_dir: Path, check: Callable[[], None]) -> Path:
        if claim.base_policy is not None:
            return self._fetch(claim.base_policy, work_dir / "base", check)
        assert claim.base_model_name is not None
        try:
            return get_base_model(self._backend.settings.models_dir, claim.base_model_name).directory.resolve()
        except DomainError as error:
            raise _CannotScore(error.detail) from None

    def _fetch(self, tree: StoredTree, target: Path, check: Callable[[], None]) -> Path:
        try:
            fetch_tree(self._backend.store, tree.prefix, tree.manifest_sha256, target, between_files=check)
        except TreeDamaged as damage:
            raise _CannotScore(f"A stored policy is damaged: {damage}") from None
        return target

    def _run_scorer(self, work_dir: Path, check: Callable[[], None]) -> None:
        (work_dir / "tmp").mkdir()
        log = work_dir / "log"
        deadline = time.monotonic() + MAX_SECONDS
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*self._command, str(work_dir)],
                cwd=work_dir,
                env=trainer_environment(work_dir, self._num_threads),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            try:
                while process.poll() is None:
                    check()
                    if time.monotonic() > deadline:
                        raise _CannotScore(f"Scoring took more than {MAX_SECONDS:.0f} seconds; ask for fewer texts.")
                    time.sleep(_TICK_SECONDS)
            finally:
                process.kill()
                process.wait()
        if process.returncode != 0:
            _log.error("scoring failed: %s", log.read_text(errors="replace")[-_KEPT_LOG_CHARS:])
            raise _CannotScore("Scoring failed; the worker's log says more.")


class _Renewal:
    """Called again and again: keeps the lease, and ends the work when it is lost or the worker drains."""

    def __init__(self, backend: Backend, claim: ScoreClaim, drain: Drain) -> None:
        self._backend = backend
        self._claim = claim
        self._drain = drain
        self._renewed_at = time.monotonic()

    def __call__(self) -> None:
        if self._drain.is_begun:
            raise _Ending
        lease_seconds = self._backend.settings.lease_seconds
        if time.monotonic() - self._renewed_at > lease_seconds / 3:
            if not scores.renew(self._backend, self._claim, lease_seconds):
                raise _Ending
            self._renewed_at = time.monotonic()
