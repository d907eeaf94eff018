"""A backup put into an empty deployment: objects first, the database last.

Whoever worked when the backup was made is fenced: every attempt that ran is ended in the transaction that brings the
rows, its job is queued and goes on from its last checkpoint, and all other leases end with it.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import structlog
from sqlalchemy.orm import Session

from core.database import snapshots
from core.database.repositories import backups as rows
from core.domain.jobs.job_state import AttemptOutcome
from core.services.access import audit
from core.services.attempts import requeue
from core.services.backend import Backend
from core.services.operations.backups.repository import (
    MODELS,
    STORE,
    BackupError,
    Manifest,
    Repository,
    Stored,
    verify,
)
from core.settings import Settings
from core.storage import keys
from core.storage.object_store import ObjectInfo, ObjectNotFound, ObjectStore, StoreUnavailable
from core.storage.trees import file_sha256

ACTOR = "restore"

_log = structlog.get_logger(__name__)


def choose(folder: Path, name: str | None = None) -> tuple[Repository, Manifest]:
    """Return the backup of that name, or the newest. Raises BackupError."""
    repository = Repository(folder)
    names = repository.names()
    if not names:
        raise BackupError(f"{folder} holds no whole backup")
    if name is not None and name not in names:
        raise BackupError(f"{folder} has no backup {name}; it has {', '.join(names)}")
    return repository, repository.read(name or names[-1])


def check(repository: Repository, manifest: Manifest, tell: Callable[[int], None] = lambda _: None) -> None:
    """Read the whole backup. Raises BackupError naming what is missing or damaged."""
    if faults := verify(repository, manifest, tell):
        more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
        raise BackupError(
            f"backup {manifest.id} is damaged: {faults[0]}{more}; `preftune backup --reread {repository.root}` copies "
            "again what the service that was backed up still has"
        )


def restore(backend: Backend, repository: Repository, manifest: Manifest) -> None:
    """Restore into an empty database and an empty store, once the whole backup has been checked.

    One that broke off may be repeated. Raises BackupError, Unavailable, SettingsError, and OSError.
    """
    _require_kind(backend, manifest)
    if not snapshots.is_empty(backend.database):
        raise BackupError("the database holds tables already; restore into an empty one")
    found = list(repository.objects(manifest))
    objects = {one.key: one for one in found if one.place == STORE}
    models = [one for one in found if one.place == MODELS]
    _require_empty(backend.store, objects)
    _require_no_other_models(backend.settings, models)
    check(repository, manifest)
    for one in objects.values():
        _put(backend.store, repository, one)
    for one in models:
        _put_model(backend.settings, repository, one)
    copy = snapshots.DatabaseCopy(
        kind=manifest.kind,
        revision=manifest.revision,
        tables=tuple(
            snapshots.TableCopy(name=table.name, columns=tuple(table.columns), path=repository.blob(table.sha256))
            for table in manifest.tables
        ),
    )
    backend.database.close()  # its connections to an empty SQLite file would stay with that file
    try:
        snapshots.load(
            backend.settings.effective_database_url,
            copy,
            lambda session: _release(session, backend.settings, manifest.id),
        )
    except snapshots.DatabaseNotEmpty as error:
        raise BackupError(str(error)) from None


def _require_kind(backend: Backend, manifest: Manifest) -> None:
    kind = snapshots.POSTGRESQL if backend.database.is_postgresql else snapshots.SQLITE
    if manifest.kind != kind:
        raise BackupError(
            f"backup {manifest.id} is of a {manifest.kind} database; PREFTUNE_DATABASE_URL names one of {kind}"
        )


def _require_empty(store: ObjectStore, wanted: dict[str, Stored]) -> None:
    """Refuse a store that holds anything but what a restore of this backup has written before it broke off."""
    for info in _all(store):
        if info.key not in wanted or wanted[info.key].num_bytes != info.num_bytes:
            raise BackupError(f"the store holds objects already, such as {info.key}; restore into an empty one")


def _require_no_other_models(settings: Settings, models: list[Stored]) -> None:
    """Refuse a base model of another content under a name of the backup's."""
    for one in models:
        path = settings.models_dir / one.key
        if path.exists() and (path.stat().st_size != one.num_bytes or file_sha256(path) != one.sha256):
            raise BackupError(
                f"{path} is not the file of the backup; move that base model away, or set another PREFTUNE_MODELS_DIR"
            )


def _all(store: ObjectStore) -> Iterator[ObjectInfo]:
    for root in (keys.ROOT, keys.MODELS_ROOT):
        yield from store.list(root)


def _put(store: ObjectStore, repository: Repository, one: Stored) -> None:
    if _holds(store, one):
        return
    store.put_file(one.key, repository.blob(one.sha256))
    if not _holds(store, one):
        raise StoreUnavailable(f"The object store gives back other bytes of {one.key} than it was given.")


def _holds(store: ObjectStore, one: Stored) -> bool:
    digest = hashlib.sha256()
    try:
        for chunk in store.read(one.key):
            digest.update(chunk)
    except ObjectNotFound:
        return False
    return digest.hexdigest() == one.sha256


def _put_model(settings: Settings, repository: Repository, one: Stored) -> None:
    target = settings.models_dir / one.key
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.restoring")
    with repository.blob(one.sha256).open("rb") as source, unfinished.open("wb") as copy:
        while chunk := source.read(1024 * 1024):
            copy.write(chunk)
        copy.flush()
        os.fsync(copy.fileno())
    os.utime(unfinished, ns=(int(one.modified), int(one.modified)))
    unfinished.rename(target)


def _release(session: Session, settings: Settings, name: str) -> None:
    running = rows.list_running(session)
    for job in running:
        message = f"The service was restored from backup {name}, which was made while this attempt ran."
        requeue.give_back(session, settings, job, requeue.AttemptEnd(AttemptOutcome.DRAINED, ACTOR, message=message))
    rows.end_leases(session)
    audit.note(session, None, "service.restore", name)
    _log.info("restored", backup=name, num_jobs_queued_again=len(running))
