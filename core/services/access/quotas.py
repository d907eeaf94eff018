"""Quotas of a project: checked before a body is read, and in the transaction that takes.

Counted are datasets with their normalised rows, announced and arriving uploads, and all that jobs make: checkpoints,
policies, artifacts with their exports, outputs of stages. A running job is never stopped: what it makes counts once it
is there, and the next job is refused until something is deleted.
"""

import time
from dataclasses import asdict, dataclass

from sqlalchemy.orm import Session

from core.database.repositories import access, usage
from core.database.tables.access import ProjectLimits
from core.domain.errors import Limited, TooLarge
from core.domain.jobs.job_state import JobStatus
from core.services.access.disk_reserve import Room, room_of
from core.services.access.projects import Limits, limits_of, require_project
from core.services.backend import Backend
from core.services.ids import new_id

MAX_LARGEST = 5
ARRIVAL_SECONDS = 3600.0
"""Without a sign of the process that receives it, room for a body is given back."""
ARRIVAL_RENEWAL_SECONDS = 600.0
ARRIVAL_STEP_BYTES = 64 * 1024**2
"""What a body of unknown length takes at a time."""


class QuotaExceeded(Limited):
    code = "quota-exceeded"
    title = "The project has reached a limit"


class StorageQuotaExceeded(TooLarge):
    code = "storage-quota-exceeded"
    title = "The project has stored what it may"


@dataclass(frozen=True, kw_only=True)
class LargeThing:
    id: str
    num_bytes: int


@dataclass(frozen=True, kw_only=True)
class UsageView:
    project_id: str
    stored_bytes: int
    stored: dict[str, int]
    """Bytes by what takes them: see `usage.KINDS`."""
    largest: list[LargeThing]
    limits: Limits
    num_queued: int
    num_running: int
    room: list[Room]
    """Free space of this process's disks."""


def get_usage(backend: Backend, project_id: str) -> UsageView:
    """Return what the project stores and may store. Raises ProjectNotFound."""

    def work(session: Session) -> UsageView:
        require_project(session, project_id)
        stored = usage.bytes_by_kind(session, project_id)
        return UsageView(
            project_id=project_id,
            stored_bytes=sum(stored.values()),
            stored=stored,
            largest=_largest(session, project_id),
            limits=limits_of(access.find_limits(session, project_id)),
            num_queued=access.count_jobs(session, project_id, JobStatus.QUEUED),
            num_running=access.count_jobs(session, project_id, JobStatus.RUNNING),
            room=room_of(backend.settings),
        )

    return backend.database.read(work)


def require_room_for_job(session: Session, project_id: str) -> None:
    """Check the quotas in the transaction that queues a job. Raises QuotaExceeded, StorageQuotaExceeded."""
    limits = access.lock_limits(session, project_id)
    if limits is None:
        return
    most = limits.max_queued_jobs
    if most is not None and access.count_jobs(session, project_id, JobStatus.QUEUED) >= most:
        raise QuotaExceeded(
            f"The project has {most} queued jobs, which is all it may have; wait for one to start.",
            quota="max_queued_jobs",
        )
    _require_storage(session, project_id, limits, 1, "what a job makes")


def require_room_for_export(session: Session, project_id: str) -> None:
    """Check the quota in the transaction that asks for an export. Raises StorageQuotaExceeded."""
    _require_storage(session, project_id, access.lock_limits(session, project_id), 1, "an export")


def require_room(session: Session, project_id: str, num_bytes: int, *, held_as: str | None = None) -> None:
    """Check the quotas in the transaction that records a file; room that `held_as` has taken is its own.

    Raises QuotaExceeded, StorageQuotaExceeded.
    """
    limits = access.lock_limits(session, project_id)
    if limits is None:
        return
    if limits.max_upload_bytes is not None and num_bytes > limits.max_upload_bytes:
        raise QuotaExceeded(
            f"The file has {num_bytes:,} bytes; a file of this project may have {limits.max_upload_bytes:,}.",
            quota="max_upload_bytes",
        )
    _require_storage(session, project_id, limits, num_bytes, f"{num_bytes:,} more", held_as=held_as)


def _require_storage(
    session: Session,
    project_id: str,
    limits: ProjectLimits | None,
    num_bytes: int,
    what: str,
    *,
    held_as: str | None = None,
) -> None:
    """Check the quota of stored bytes. Raises StorageQuotaExceeded, naming what takes it and what to delete."""
    most = limits.max_stored_bytes if limits else None
    if most is None:
        return
    stored = usage.bytes_by_kind(session, project_id)
    taken = sum(stored.values()) - (usage.held_bytes(session, held_as) if held_as else 0)
    if taken + num_bytes <= most:
        return
    by = ", ".join(f"{kind.replace('_', ' ')} {size:,}" for kind, size in stored.items() if size)
    largest = _largest(session, project_id)
    named = ", ".join(f"{thing.id} ({thing.num_bytes:,})" for thing in largest)
    advice = f"Delete something of it, the largest first: {named}." if named else "Ask the operator for more."
    raise StorageQuotaExceeded(
        f"The project stores {taken:,} of {most:,} bytes ({by or 'nothing'}); {what} is too much. {advice}",
        quota="max_stored_bytes",
        limit_bytes=most,
        stored_bytes=taken,
        stored=stored,
        largest=[asdict(thing) for thing in largest],
    )


class ArrivingBody:
    """Reserve quota for one body while it is received; projects without a limit are not asked."""

    def __init__(self, backend: Backend, project_id: str) -> None:
        self._backend = backend
        self._project_id = project_id
        self._held_bytes = 0
        self._is_limited = True
        self._renew_at = 0.0
        self.id = new_id("arr")

    def require(self, num_bytes: int) -> None:
        """Reserve room for so many bytes in all. Raises QuotaExceeded, StorageQuotaExceeded, Unavailable."""
        if num_bytes <= self._held_bytes or not self._is_limited:
            return

        def find_most(session: Session) -> bool:
            limits = access.find_limits(session, self._project_id)
            return limits is not None and limits.max_stored_bytes is not None

        if not self._held_bytes and not self._backend.database.read(find_most):
            self._is_limited = False
            return
        self._backend.database.write(lambda session: self._take(session, num_bytes))

    def _take(self, session: Session, num_bytes: int) -> None:
        require_room(session, self._project_id, num_bytes, held_as=self.id)
        usage.put_arrival(session, self._project_id, self.id, num_bytes, ARRIVAL_SECONDS)
        self._held_bytes = num_bytes
        self._renew_at = time.monotonic() + ARRIVAL_RENEWAL_SECONDS

    def require_step(self, num_bytes: int, most_bytes: int | None = None) -> None:
        """Reserve room for so many bytes, and keep what is reserved from expiring while the body comes.

        A body of unknown length takes room in steps, so that few chunks ask, and by the byte near the end; one that can
        have `most_bytes` takes no more than that.
        """
        if not self._is_limited:
            return
        if num_bytes <= self._held_bytes:
            self._renew_if_due()
            return
        step = num_bytes + ARRIVAL_STEP_BYTES
        try:
            self.require(step if most_bytes is None else max(num_bytes, min(step, most_bytes)))
        except (QuotaExceeded, StorageQuotaExceeded):
            self.require(num_bytes)

    def _renew_if_due(self) -> None:
        """Extend the reservation. Raises StorageQuotaExceeded where it has expired and others have taken the room."""
        if time.monotonic() < self._renew_at:
            return

        def renew(session: Session) -> None:
            if not usage.extend_arrival(session, self.id, ARRIVAL_SECONDS):
                self._take(session, self._held_bytes)

        self._backend.database.write(renew)
        self._renew_at = time.monotonic() + ARRIVAL_RENEWAL_SECONDS

    def stop(self) -> None:
        """Reserve nothing more."""
        self._is_limited = False

    def release(self) -> None:
        """Give the room back. Raises Unavailable; it then ends by itself."""
        if self._held_bytes:
            self._backend.database.write(lambda session: usage.delete_arrival(session, self.id))


def forget_arrival(session: Session, held_as: str | None) -> None:
    """Delete an arrival in the transaction that records its dataset."""
    if held_as is not None:
        usage.delete_arrival(session, held_as)


def let_go_of_silent(backend: Backend) -> None:
    """Delete the reservations of processes that are gone."""
    backend.database.write(usage.delete_expired_arrivals)


def _largest(session: Session, project_id: str) -> list[LargeThing]:
    found = usage.list_largest(session, project_id, MAX_LARGEST)
    return [LargeThing(id=name, num_bytes=size) for name, size in found if size > 0]
