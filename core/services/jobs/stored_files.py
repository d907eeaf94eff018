"""Published files for download: complete reads are verified, and damage is reported."""

import hashlib
from collections.abc import Iterator

import structlog
from sqlalchemy.orm import Session

from core.database.repositories import jobs as job_rows
from core.database.repositories.events import EventDraft, append_event
from core.domain.errors import Unavailable
from core.domain.jobs.stored_files import StoredFile, StoredTree
from core.services.backend import Backend
from core.services.transactions import writes
from core.storage.object_store import ObjectMissing, ObjectNotFound, StoreUnavailable
from core.storage.trees import MANIFEST, MAX_READS, TreeDamaged, read_manifest

_log = structlog.get_logger(__name__)


class ObjectDamaged(Unavailable):
    code = "object-damaged"
    title = "A stored object is not what was stored"


def list_tree(backend: Backend, tree: StoredTree) -> list[StoredFile]:
    """Return the files of a stored folder. Raises ObjectDamaged, StoreUnavailable."""
    try:
        return read_manifest(backend.store, tree)
    except TreeDamaged as damage:
        _log.error("object_damaged", key=tree.prefix + MANIFEST)
        raise ObjectDamaged(f"The files cannot be listed: {damage}") from None


def read_file(
    backend: Backend, job_id: str, file: StoredFile, start: int = 0, end: int | None = None
) -> Iterator[bytes]:
    """Yield chunks of the bytes [start, end). Raises ObjectMissing before the first, with an event for the job.

    Of a whole file the last chunk is held back until the digest is known to be right. Where it is not, the store is
    asked again: a file of one chunk, which is not given out yet, is taken from the read that is right. Raises
    StoreUnavailable where other bytes may have been given out, and ObjectDamaged where no read is right; the job's
    events tell of it. A part of a file cannot be judged: whoever puts parts together checks the sum.
    """
    try:
        chunks = backend.store.read(file.key, start, end)
    except ObjectNotFound:
        raise _missing(backend, job_id, file) from None
    if start > 0 or (end is not None and end < file.num_bytes):
        return chunks
    return _verified(backend, job_id, file, chunks)


def _verified(backend: Backend, job_id: str, file: StoredFile, chunks: Iterator[bytes]) -> Iterator[bytes]:
    digest = hashlib.sha256()
    held: bytes | None = None
    has_begun = False
    for chunk in chunks:
        if held is not None:
            yield held
            has_begun = True
        digest.update(chunk)
        held = chunk
    if digest.hexdigest() != file.sha256:
        is_kept = not has_begun and held is not None and len(held) == file.num_bytes
        held = _read_again(backend, file, keeps=is_kept)
        if held is None:
            tell_of_damage(
                backend,
                job_id,
                file,
                "is damaged in the object store: its bytes have not the SHA-256 that was recorded.",
            )
            raise ObjectDamaged(f"{file.path} is damaged in the store; restore it from a backup, or run the job again.")
        if not is_kept:
            raise StoreUnavailable(f"{file.path} was read with other bytes than stored; request it again.")
    if held is not None:
        yield held


def _read_again(backend: Backend, file: StoredFile, *, keeps: bool) -> bytes | None:
    """Return the file's verified bytes, empty unless `keeps`; None if no further read is right."""
    for _ in range(MAX_READS - 1):
        _log.warning("object_read_again", key=file.key)
        digest = hashlib.sha256()
        kept = bytearray()
        for chunk in backend.store.read(file.key):
            digest.update(chunk)
            if keeps:
                kept += chunk[: file.num_bytes - len(kept)]
        if digest.hexdigest() == file.sha256:
            return bytes(kept)
    return None


def require_present(backend: Backend, job_id: str, file: StoredFile) -> None:
    """Raise ObjectMissing, with an event for the job, when the store has not the object."""
    try:
        backend.store.stat(file.key)
    except ObjectNotFound:
        raise _missing(backend, job_id, file) from None


def _missing(backend: Backend, job_id: str, file: StoredFile) -> ObjectMissing:
    tell_of_damage(backend, job_id, file, "is missing in the object store.")
    return ObjectMissing(f"{file.path} is gone from the store; restore it from a backup, or run the job again.")


def tell_of_damage(backend: Backend, job_id: str, file: StoredFile, what: str, *, actor: str = "api") -> None:
    """Add an event to the job, once for each file."""
    _log.error("object_damaged", key=file.key)
    message = f"{file.path} {what}"
    token = hashlib.sha256(file.key.encode()).hexdigest()[:26]
    event = EventDraft(
        kind="object_damaged",
        level="error",
        message=message,
        data={"path": file.path, "sha256": file.sha256},
        actor=actor,
        token=token,
    )
    try:
        _append(backend, job_id, event)
    except Unavailable as error:
        _log.warning("damage_not_recorded", detail=error.detail)


@writes
def _append(session: Session, job_id: str, event: EventDraft) -> None:
    job = job_rows.lock_job(session, job_id)
    if job is not None:
        append_event(session, job, event)
