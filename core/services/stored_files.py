"""Published files on their way to users: what is read whole is checked on the way, and damage is told of."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import structlog
from sqlalchemy.orm import Session

from core.database.repositories import jobs as job_rows
from core.database.repositories.events import EventDraft, append_event
from core.domain.errors import Unavailable
from core.services.backend import Backend
from core.storage.trees import MANIFEST, TreeDamaged, read_manifest

_log = structlog.get_logger(__name__)


class ObjectDamaged(Unavailable):
    code = "object-damaged"
    title = "A stored object is not what was stored"


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    path: str
    """Inside its folder, with `/`."""
    num_bytes: int
    sha256: str
    key: str
    """In the object store; not for users."""


def list_tree(backend: Backend, prefix: str, manifest_sha256: str) -> list[StoredFile]:
    """The files of a folder that was stored whole. Raises ObjectDamaged, StoreUnavailable."""
    try:
        files = read_manifest(backend.store, prefix, manifest_sha256)
    except TreeDamaged as damage:
        _log.error("object_damaged", key=prefix + MANIFEST)
        raise ObjectDamaged(f"The files cannot be listed: {damage}") from None
    return [
        StoredFile(path=file.path, num_bytes=file.num_bytes, sha256=file.sha256, key=prefix + file.path)
        for file in files
    ]


def read_file(
    backend: Backend, job_id: str, file: StoredFile, start: int = 0, end: int | None = None
) -> Iterator[bytes]:
    """Chunks of the bytes [start, end). Raises ObjectNotFound before the first.

    Of a whole file the last chunk is held back until the digest is known to be right. Raises ObjectDamaged where it is
    not; the job's events tell of it. A part of a file cannot be judged: whoever puts parts together checks the sum.
    """
    chunks = backend.store.read(file.key, start, end)
    if start > 0 or (end is not None and end < file.num_bytes):
        return chunks
    return _verified(backend, job_id, file, chunks)


def _verified(backend: Backend, job_id: str, file: StoredFile, chunks: Iterator[bytes]) -> Iterator[bytes]:
    digest = hashlib.sha256()
    held: bytes | None = None
    for chunk in chunks:
        if held is not None:
            yield held
        digest.update(chunk)
        held = chunk
    if digest.hexdigest() != file.sha256:
        _tell_of_damage(backend, job_id, file)
        raise ObjectDamaged(f"{file.path} is damaged in the store; restore it from a backup, or run the job again.")
    if held is not None:
        yield held


def _tell_of_damage(backend: Backend, job_id: str, file: StoredFile) -> None:
    """Once for each file, among the job's events."""
    _log.error("object_damaged", key=file.key)
    message = f"{file.path} is damaged in the object store: its bytes have not the SHA-256 that was recorded."
    token = hashlib.sha256(file.key.encode()).hexdigest()[:26]
    event = EventDraft(
        kind="object_damaged",
        level="error",
        message=message,
        data={"path": file.path, "sha256": file.sha256},
        actor="api",
        token=token,
    )

    def work(session: Session) -> None:
        job = job_rows.lock_job(session, job_id)
        if job is not None:
            append_event(session, job, event)

    try:
        backend.database.write(work)
    except Unavailable as error:
        _log.warning("damage_not_recorded", detail=error.detail)
