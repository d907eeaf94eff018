"""Garbage collection of objects that no row names: released ones at once, orphans after a day."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy.orm import Session

from core.database.repositories import attempts as attempt_rows
from core.database.repositories import backups, garbage, objects
from core.database.repositories import uploads as upload_rows
from core.failpoints import reach
from core.services.backend import Backend
from core.services.transactions import reads
from core.storage import keys
from core.storage.object_store import ObjectInfo, StoreUnavailable

MAX_PREFIXES = 20
"""Prefixes deleted in one pass."""
MAX_OBJECTS = 500
"""Objects looked at in one step of the scan for orphans."""
MIN_AGE = timedelta(hours=24)
SECOND_LOOK_SECONDS = 600.0
MAX_SUSPECTS = 100_000
"""Orphans that are remembered for a second look; more wait for the scan after."""
PAUSE_STEPS = 720
"""Between two scans: an hour at the default sweep interval."""

_log = structlog.get_logger(__name__)


def collect(backend: Backend) -> int:
    """Delete released objects, unless a backup is being made; return how many prefixes."""
    if is_held(backend):
        return 0
    prefixes = backend.database.read(lambda session: garbage.list_garbage(session, limit=MAX_PREFIXES))
    for prefix in prefixes:
        _collect_one(backend, prefix)
    return len(prefixes)


def is_held(backend: Backend) -> bool:
    """Whether a backup is being made, for which all objects stay."""
    return backend.database.read(backups.is_garbage_held)


def _collect_one(backend: Backend, prefix: str) -> None:
    if _is_garbage(backend, prefix):
        reach("garbage.judged")
        for info in list(backend.store.list(prefix)):
            backend.store.delete(info.key)
            reach("garbage.object_deleted")
    backend.database.write(lambda session: garbage.forget_garbage(session, prefix))


@reads
def _is_garbage(session: Session, prefix: str) -> bool:
    """Whether no row names the prefix now: a deleted dataset may have been created again under its id."""
    owner = keys.owner_of(prefix) if keys.owning_prefix(prefix + "object") == prefix else keys.Owner()
    if owner.dataset_id is not None:
        return not objects.has_dataset_rows(session, owner.dataset_id)
    if owner.upload_id is not None:
        return not upload_rows.is_upload_open(session, owner.upload_id)
    return not objects.is_prefix_named(session, prefix)


class OrphanScan:
    """Scan of the whole store in small steps for leftovers of uploads by replaced or dead workers.

    Objects younger than `min_age` are left alone. An orphan is deleted when a second look, `second_look_seconds` after
    the first by this process's own steady clock, finds it still one: the store's clock and the database's may differ,
    and objects are written before the rows that name them.
    """

    def __init__(self, min_age: timedelta = MIN_AGE, second_look_seconds: float = SECOND_LOOK_SECONDS) -> None:
        self._min_age = min_age
        self._second_look_seconds = second_look_seconds
        self._suspects: dict[str, float] = {}
        """Orphans of the scan before, each with the time of the first look."""
        self._found: dict[str, float] = {}
        """Orphans of this scan."""
        self._listing: Iterator[ObjectInfo] | None = None
        self._num_paused = PAUSE_STEPS
        self._verdicts: dict[str, bool] = {}
        self._now = datetime.min.replace(tzinfo=UTC)
        """Time of the database's clock: one machine's that is days ahead must not make fresh objects old."""

    def step(self, backend: Backend) -> int:
        """Examine some objects, or pause between scans; return how many were deleted."""
        self._now = backend.database.read(attempt_rows.database_time)
        if is_held(backend):
            return 0
        if self._listing is None:
            self._num_paused += 1
            if self._num_paused <= PAUSE_STEPS:
                return 0
            self._remove_leftovers(backend)
            self._listing, self._num_paused, self._verdicts = backend.store.list(keys.ROOT), 0, {}
        num_deleted = 0
        for _ in range(MAX_OBJECTS):
            info = next(self._listing, None)
            if info is None:
                self._listing = None
                self._suspects, self._found = self._found, {}
                break
            num_deleted += self._judge(backend, info)
        return num_deleted

    def _remove_leftovers(self, backend: Backend) -> None:
        """Remove unfinished uploads; a store that cannot list them is still scanned for orphans."""
        try:
            backend.store.remove_leftovers(self._min_age.total_seconds())
        except StoreUnavailable as error:
            _log.warning("leftovers_not_listed", reason=error.detail)

    def _judge(self, backend: Backend, info: ObjectInfo) -> bool:
        prefix = keys.owning_prefix(info.key)
        if prefix is None or self._now - info.modified_at < self._min_age:
            return False
        if prefix not in self._verdicts:
            self._verdicts = {prefix: is_orphan(backend, prefix)}
        if not self._verdicts[prefix] or not self._is_second_look(prefix):
            return False
        backend.store.delete(info.key)
        _log.info("orphan_deleted", key=info.key)
        return True

    def _is_second_look(self, prefix: str) -> bool:
        now = time.monotonic()
        if prefix not in self._found and len(self._found) < MAX_SUSPECTS:
            self._found[prefix] = self._suspects.get(prefix, now)
        return now - self._found.get(prefix, now) >= self._second_look_seconds


@reads
def is_orphan(session: Session, prefix: str) -> bool:
    """Whether no row names the object, nor may one that is still being written."""
    owner = keys.owner_of(prefix)
    if owner.dataset_id is not None:
        return not objects.is_dataset_kept(session, owner.dataset_id)
    if owner.upload_id is not None:
        return not upload_rows.is_upload_kept(session, owner.upload_id)
    is_running = attempt_rows.is_running(session, owner.job_id or "", owner.attempt, owner.token)
    return not is_running and not objects.is_prefix_named(session, prefix)
