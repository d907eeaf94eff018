"""What must happen although nobody asks: leases run out, wake-ups are sent again, old keys and objects go.

Every worker and API process runs a `Sweeper`; a row in the database lets one of them work at a time. All of it may be
done twice without harm.
"""

import threading
import time
from dataclasses import dataclass, field

import structlog
from sqlalchemy.orm import Session

from core.database.repositories import bookkeeping
from core.database.repositories import jobs as job_rows
from core.database.repositories.events import SWEEPER
from core.domain.job_state import AttemptOutcome, JobStatus
from core.failpoints import reach
from core.services import garbage_collection, idempotency, requeue, retention, uploads
from core.services.backend import Backend
from core.services.ids import new_suffix

MAX_LEASES = 10_000
MAX_WAKES = 16
"""A wake-up that finds work makes its worker go on by itself, so a few are enough for any queue."""
_LOCK_PASSES = 3
"""The lock outlives so many missed passes."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Lease:
    """One running attempt, as seen."""

    job_id: str
    attempt: int
    heartbeat_seq: int


@dataclass
class LeaseWatch:
    """The rule of two observations: a lease is dead only if one process saw it unchanged for its whole length.

    So neither a jump of the database's clock nor an outage, after which every lease looks old, kills a live attempt.
    """

    lease_seconds: float
    _first_seen: dict[Lease, float] = field(default_factory=dict)

    def observe(self, leases: dict[Lease, bool], now: float) -> list[Lease]:
        """`leases` are all that run, with whether the database says they have expired; `now` is monotonic.

        Returns those that are dead.
        """
        self._first_seen = {lease: self._first_seen.get(lease, now) for lease in leases}
        return [
            lease
            for lease, has_expired in leases.items()
            if has_expired and now - self._first_seen[lease] >= self.lease_seconds
        ]


class Sweeper:
    """A background thread that sweeps until stopped."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._owner = new_suffix()
        self._watch = LeaseWatch(backend.settings.lease_seconds)
        self._orphans = garbage_collection.OrphanScan()
        self._retention = retention.Retention()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_seconds: float = 5) -> None:
        self._stop.set()
        self._thread.join(timeout_seconds)

    def sweep(self) -> None:
        """One pass. Raises Unavailable."""
        self._observe()
        if not self._take_lock():
            return
        self._wake()
        idempotency.forget_old(self._backend)
        uploads.let_go_of_expired(self._backend)
        self._retention.step(self._backend)
        garbage_collection.collect(self._backend)
        self._orphans.step(self._backend)

    def _run(self) -> None:
        seconds = self._backend.settings.sweep_seconds
        while not self._stop.wait(seconds):
            try:
                self.sweep()
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
            lambda session: job_rows.mark_woken(session, after_seconds=seconds, limit=MAX_WAKES)
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
    """Take the job away from the attempt, if it has not moved since it was seen; returns whether it was.

    A worker that was frozen inside a transaction keeps its row locked, on PostgreSQL for up to half a minute. The
    sweeper skips it and comes again, so that no other lease waits for it.
    """

    def work(session: Session) -> bool:
        job = job_rows.lock_job(session, lease.job_id, skip_locked=skip_locked)
        is_same = job is not None and (job.attempt, job.heartbeat_seq) == (lease.attempt, lease.heartbeat_seq)
        if job is None or not is_same or job.status is not JobStatus.RUNNING:
            return False
        requeue.give_back(session, backend.settings, job, requeue.Return(AttemptOutcome.LOST, actor))
        reach("expire.in_transaction")
        return True

    was_expired = backend.database.write(work)
    if was_expired:
        reach("expire.committed")
        _log.info("lease_expired", job_id=lease.job_id, attempt=lease.attempt)
        backend.queue.wake()
    return was_expired


def release_leases_of(backend: Backend, worker: str) -> int:
    """The worker process of that name is known to be dead: give its jobs back at once; returns how many."""
    leases = list_leases(backend, owner=worker)
    return sum(expire(backend, lease, actor="supervisor of local processes") for lease in leases)
