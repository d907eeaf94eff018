"""Periodic upkeep: expired leases, lost wake-ups, old keys and objects.

Every worker and API process runs a `Sweeper`; a row in the database lets one of them work at a time. All of it may be
done twice without harm: so one that lost the row in the midst of its work goes on to the end of that pass.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog
from sqlalchemy.orm import Session

from core.database.repositories import bookkeeping, queue
from core.database.repositories import jobs as job_rows
from core.database.repositories.events import SWEEPER
from core.domain.jobs.job_state import AttemptOutcome, JobStatus
from core.failpoints import reach
from core.services.access import audit, browser_sessions, idempotency, quotas, rates
from core.services.attempts import nodes, requeue
from core.services.backend import Backend
from core.services.datasets import datasets, parts
from core.services.estimates import filling, workers
from core.services.feedback import answers
from core.services.ids import new_suffix
from core.services.jobs import retention, weights
from core.services.operations import garbage_collection, object_checks
from core.services.rounds import progress as rounds_progress
from core.services.sweeps import progress as sweep_progress

MAX_LEASES = 10_000
MAX_WAKES = 16
"""A wake-up that finds work makes its worker go on by itself, so a few are enough for any queue."""
_LOOKS_PER_LEASE = 4
"""Minimum number of looks before a lease is taken for dead."""
_LOCK_PASSES = 3
"""The lock outlives so many missed passes."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Lease:
    """A running attempt as observed."""

    job_id: str
    attempt: int
    heartbeat_seq: int


@dataclass
class LeaseWatch:
    """Rule of two observations: a lease is dead only if one process saw it unchanged for its whole length.

    What counts is time with looks in it: between two of them at most a quarter of a lease. So neither a jump of the
    database's clock nor an outage, after which every lease looks old, kills a live attempt: its worker gets most of a
    lease to beat again.
    """

    lease_seconds: float
    _watched_seconds: dict[Lease, float] = field(default_factory=dict)
    _last_look: float | None = None

    def observe(self, leases: dict[Lease, bool], now: float) -> list[Lease]:
        """Add an observation of all running leases and whether the database has them expired; `now` is monotonic.

        Returns those that are dead.
        """
        longest = self.lease_seconds / _LOOKS_PER_LEASE
        passed = 0.0 if self._last_look is None else min(now - self._last_look, longest)
        self._last_look = now
        self._watched_seconds = {
            lease: self._watched_seconds[lease] + passed if lease in self._watched_seconds else 0.0 for lease in leases
        }
        return [
            lease
            for lease, has_expired in leases.items()
            if has_expired and self._watched_seconds[lease] >= self.lease_seconds
        ]


class Sweeper:
    """Background thread that sweeps until stopped.

    Threads of their own: the one that watches over leases speaks to the database only, so that a store which says
    nothing, and holds the one that tidies up for minutes, holds up no job.
    """

    def __init__(self, backend: Backend, *, makes_estimates: bool = False) -> None:
        """`makes_estimates`: of queued jobs, too, which opens tokenizers in this process."""
        self._backend = backend
        self._owner = new_suffix()
        self._watch = LeaseWatch(backend.settings.lease_seconds)
        self._orphans = garbage_collection.OrphanScan()
        self._retention = retention.Retention()
        self._is_chosen = False
        self._last_sweep = self._last_rounds = ""
        self._stop = threading.Event()
        works = {"sweeper": self.look_after_jobs, "sweeper of garbage": self._tidy_up_if_chosen}
        if makes_estimates:
            works["estimates"] = filling.Filling(backend).step
        works["sweeps"] = self._advance_sweeps_if_chosen
        works["rounds"] = self._advance_rounds_if_chosen
        self._threads = [
            threading.Thread(target=self._repeat, args=(work,), name=name, daemon=True) for name, work in works.items()
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_seconds: float = 5) -> None:
        self._stop.set()
        deadline = time.monotonic() + timeout_seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def sweep(self) -> None:
        """Run one pass. Raises Unavailable."""
        self.look_after_jobs()
        self._tidy_up_if_chosen()
        self._advance_sweeps_if_chosen()
        self._advance_rounds_if_chosen()

    def look_after_jobs(self) -> None:
        """Expire dead leases and repeat lost wake-ups. Raises Unavailable."""
        self._observe()
        self._is_chosen = self._take_lock()
        if self._is_chosen:
            self._wake()

    def _tidy_up_if_chosen(self) -> None:
        if not self._is_chosen:
            return
        idempotency.forget_old(self._backend)
        parts.let_go_of_expired(self._backend)
        datasets.delete_expired(self._backend)
        quotas.let_go_of_silent(self._backend)
        audit.forget_old(self._backend)
        answers.forget_old(self._backend)
        browser_sessions.forget_old(self._backend)
        workers.forget_silent(self._backend)
        nodes.forget_over(self._backend)
        rates.forget_full(self._backend)
        self._retention.step(self._backend)
        weights.read_types(self._backend)
        garbage_collection.collect(self._backend)
        self._orphans.step(self._backend)
        object_checks.step(self._backend)

    def _advance_sweeps_if_chosen(self) -> None:
        if self._is_chosen:
            self._last_sweep = sweep_progress.step(self._backend, after=self._last_sweep)

    def _advance_rounds_if_chosen(self) -> None:
        if self._is_chosen:
            self._last_rounds = rounds_progress.step(self._backend, after=self._last_rounds)

    def _repeat(self, work: Callable[[], None]) -> None:
        seconds = self._backend.settings.sweep_seconds
        while not self._stop.wait(seconds):
            try:
                work()
            except Exception as error:  # noqa: BLE001 - the sweeper must outlive whatever one pass meets
                _log.warning("sweep_failed", error=type(error).__name__, detail=str(error)[:200])

    def _observe(self) -> None:
        # Without the lock too: whoever takes over has watched all along. The expiry itself is compare-and-set.
        dead = self._watch.observe(list_leases(self._backend), time.monotonic())
        for lease in dead:
            expire(self._backend, lease, skip_locked=True)

    def _take_lock(self) -> bool:
        seconds = self._backend.settings.sweep_seconds * _LOCK_PASSES
        return self._backend.database.write(
            lambda session: bookkeeping.take_sweeper_lock(session, bookkeeping.SWEEPER_LOCK, self._owner, seconds)
        )

    def _wake(self) -> None:
        seconds = self._backend.settings.lease_seconds / 2
        num_silent = self._backend.database.write(
            lambda session: queue.mark_woken(session, after_seconds=seconds, limit=MAX_WAKES)
        )
        reach("wake.marked")
        for _ in range(num_silent):
            self._backend.queue.wake()


def list_leases(backend: Backend, *, owner: str | None = None) -> dict[Lease, bool]:
    rows = backend.database.read(lambda session: job_rows.list_leases(session, owner=owner, limit=MAX_LEASES))
    return {
        Lease(job_id=job_id, attempt=attempt, heartbeat_seq=seq): has_expired
        for job_id, attempt, seq, has_expired in rows
    }


def expire(backend: Backend, lease: Lease, *, actor: str = SWEEPER, skip_locked: bool = False) -> bool:
    """Take the job from the attempt if it has not changed since observed; return whether it was taken.

    A worker that was frozen inside a transaction keeps its row locked, on PostgreSQL for up to half a minute. The
    sweeper skips it and comes again, so that no other lease waits for it.
    """

    def work(session: Session) -> bool:
        job = job_rows.lock_job(session, lease.job_id, skip_locked=skip_locked)
        is_same = job is not None and (job.attempt, job.heartbeat_seq) == (lease.attempt, lease.heartbeat_seq)
        if job is None or not is_same or job.status is not JobStatus.RUNNING:
            return False
        requeue.give_back(session, backend.settings, job, requeue.AttemptEnd(AttemptOutcome.LOST, actor))
        reach("expire.in_transaction")
        return True

    was_expired = backend.database.write(work)
    if was_expired:
        reach("expire.committed")
        _log.info("lease_expired", job_id=lease.job_id, attempt=lease.attempt)
        backend.queue.wake()
    return was_expired


def release_leases_of(backend: Backend, worker: str) -> int:
    """Release at once the jobs of a worker process known to be dead; return how many."""
    leases = list_leases(backend, owner=worker)
    return sum(expire(backend, lease, actor="supervisor of local processes") for lease in leases)
