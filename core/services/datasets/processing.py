"""Checks of datasets taken in by `create_later`: the database is the queue, a lease names the checker.

A process that dies leaves a lease that runs out; whichever processor looks next takes the dataset over.
"""

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy.orm import Session

from core.database.repositories import datasets as dataset_rows
from core.database.repositories import garbage
from core.database.tables.datasets import Dataset, DatasetStatus
from core.datasets.options import CheckOptions
from core.datasets.result import CheckResult
from core.domain.errors import DomainError
from core.domain.issue_codes import IssueCode
from core.services.backend import Backend
from core.services.datasets import intake
from core.services.datasets.rereading import reread_next
from core.services.datasets.scratch import scratch_folder
from core.services.ids import new_suffix
from core.services.transactions import writes
from core.storage import keys

MAX_TRIES = 3
NUM_THREADS = 2
REREAD_PAUSE_SECONDS = 600.0
"""After a dataset of an earlier reading that could not be compared with its file."""
_GAVE_UP = "The check was interrupted several times; upload the file again."

_log = structlog.get_logger(__name__)


class DatasetProcessor:
    """Threads that check waiting datasets, until stopped. One per API process."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._owner = new_suffix()
        self._wake = threading.Condition()
        self._is_stopping = False
        self._active: set[str] = set()
        self._rereading = threading.Lock()
        self._reread_at = 0.0
        self._threads = [
            threading.Thread(target=self._work, name=f"dataset check {i}", daemon=True) for i in range(NUM_THREADS)
        ]
        self._threads.append(threading.Thread(target=self._renew, name="dataset leases", daemon=True))

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def notify(self) -> None:
        """Wake a thread to look for waiting datasets before the next poll."""
        with self._wake:
            self._wake.notify_all()

    def stop(self, timeout_seconds: float = 5) -> None:
        """Stop the threads; unfinished work is left to another process."""
        with self._wake:
            self._is_stopping = True
            self._wake.notify_all()
        for thread in self._threads:
            thread.join(timeout_seconds)

    def _work(self) -> None:
        while not self._is_stopping:
            try:
                has_worked = self._process_one()
            except Exception as error:  # noqa: BLE001 - the thread must outlive every single dataset
                _log.warning("data_set_check_failed", error=type(error).__name__)
                has_worked = False
            if not has_worked:
                self._pause(self._backend.settings.sweep_seconds)

    def _process_one(self) -> bool:
        taken = take_next(self._backend, self._owner)
        if taken is None:
            self._reread_one()
            return False
        self._active.add(taken.id)
        try:
            process(self._backend, taken)
        finally:
            self._active.discard(taken.id)
        return True

    def _reread_one(self) -> None:
        """Compare one dataset of an older version with its file while no upload waits."""
        if time.monotonic() >= self._reread_at and self._rereading.acquire(blocking=False):
            try:
                self._reread_at = time.monotonic() + REREAD_PAUSE_SECONDS  # in case it fails
                reread_next(self._backend)
                self._reread_at = 0.0
            finally:
                self._rereading.release()

    def _renew(self) -> None:
        while not self._is_stopping:
            active = sorted(self._active)
            try:
                if active:
                    self._renew_leases(active)
            except DomainError as error:
                _log.warning("data_set_lease_not_renewed", code=error.code)
            self._pause(self._backend.settings.heartbeat_seconds)

    def _renew_leases(self, active: list[str]) -> None:
        lease_seconds = self._backend.settings.lease_seconds
        self._backend.database.write(
            lambda session: dataset_rows.renew_processing(session, self._owner, active, lease_seconds)
        )

    def _pause(self, seconds: float) -> None:
        with self._wake:
            if not self._is_stopping:
                self._wake.wait(seconds)


@dataclass(frozen=True, kw_only=True)
class Task:
    id: str
    project_id: str
    owner: str
    num_tries: int
    options: dict[str, Any]


def take_next(backend: Backend, owner: str) -> Task | None:
    """Lease a dataset that waits, or whose checker is gone."""

    def work(session: Session) -> Task | None:
        rows = dataset_rows.take_abandoned(session, owner, backend.settings.lease_seconds, limit=1)
        if not rows:
            return None
        row = rows[0]
        return Task(
            id=row.id, project_id=row.project_id, owner=owner, num_tries=row.num_tries, options=dict(row.options)
        )

    return backend.database.write(work)


def process(backend: Backend, task: Task) -> None:
    """Check the dataset and record the result, if the lease still holds."""
    if task.num_tries > MAX_TRIES:
        _conclude(backend, task, _GAVE_UP, None)
        return
    options = intake.check_options(task.options, backend.settings)
    with scratch_folder(backend.settings, "check") as folder:
        source = folder / "original"
        backend.store.get_file(keys.dataset_original(task.project_id, task.id), source)
        outcome = _check(backend, options, source, is_kind_open=bool(task.options.get("is_kind_open")))
        stored = None
        if isinstance(outcome, CheckResult) and outcome.refusal is None:
            stored = intake.store_results(backend.store, task.project_id, task.id, folder)
    _conclude(backend, task, outcome, stored)


def _check(backend: Backend, options: CheckOptions, source: Path, *, is_kind_open: bool) -> CheckResult | str:
    judge = intake.check_any_kind if is_kind_open else intake.check
    try:
        return judge(backend.settings, source, options, source.parent)
    except DomainError as error:
        if error.kind == "unavailable":
            raise
        return error.detail


@writes
def _conclude(session: Session, task: Task, outcome: CheckResult | str, stored: intake.StoredRows | None) -> None:
    row = dataset_rows.lock_dataset(session, task.project_id, task.id)
    if row is None or row.status is not DatasetStatus.PROCESSING or row.lease_owner != task.owner:
        return
    if isinstance(outcome, CheckResult):
        intake.fill_row(row, outcome, stored)
    else:
        _refuse(row, outcome)
    if not isinstance(outcome, CheckResult) or outcome.refusal is not None:
        garbage.add_garbage(session, row.project_id, keys.dataset_prefix(row.project_id, row.id), "rejected")


def _refuse(row: Dataset, detail: str) -> None:
    """Refuse a dataset without a verdict of the checker."""
    code = IssueCode.CHECK_FAILED.value
    issue = {"line": None, "row": None, "severity": "error", "code": code, "detail": detail, "pointer": None}
    row.status = DatasetStatus.REJECTED
    row.report = {"counts": {code: 1}, "issues": [issue], "issues_truncated": False, "statistics": {}}
    row.lease_owner = None
    row.lease_expires_at = None
