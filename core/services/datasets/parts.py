"""Large files in parts: each is checked against its SHA-256 and stored, so that a broken upload can continue.

Parts are objects of the store, so any API process can take the next one. An upload that no part comes to any more is
let go of by the sweeper, as is a completed one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from core.database.columns import database_after, database_now
from core.database.repositories import backups, garbage, owned
from core.database.repositories import uploads as upload_rows
from core.database.tables.uploads import Upload, UploadPart, UploadStatus
from core.datasets.options import check_names
from core.datasets.result import DatasetRejected, DatasetTooLarge, DatasetUnsupported
from core.domain.dataset_rows import DatasetKind
from core.domain.errors import Conflict, InvalidRequest, NotFound, TooLarge
from core.services.access import audit, quotas
from core.services.access.disk_reserve import require_disk
from core.services.backend import Backend
from core.services.datasets import datasets, intake
from core.services.datasets.assembly import (
    ASSEMBLING_SECONDS,
    UploadAssembling,
    assemble,
    hold_parts,
    require_no_assembly,
)
from core.services.datasets.scratch import scratch_folder
from core.services.ids import new_id, new_suffix
from core.services.transactions import reads, writes
from core.services.views import DatasetView, UploadPartView, UploadView, from_row
from core.storage import keys

MIB = 1024**2
MAX_PART_BYTES = 64 * MIB
MAX_PARTS = 1000
MAX_OPEN_UPLOADS = 100
"""Limit for one project."""
KEPT_SECONDS = 24 * 3600.0
"""After the last part, or after completion."""
UNNAMED = "dataset"
_USUAL_PARTS = 500
_MIN_PART_BYTES = 8 * MIB
_MAX_COLLECTED = 20


class UploadNotFound(NotFound):
    code = "upload-not-found"
    title = "There is no such upload"


class UploadCompleted(Conflict):
    code = "upload-completed"
    title = "The upload is a dataset already"


class UploadIncomplete(Conflict):
    code = "upload-incomplete"
    title = "Parts of the upload are missing"


class TooManyUploads(Conflict):
    code = "too-many-uploads"
    title = "Too many uploads are open"


class AnnouncedTooLarge(TooLarge):
    code = "announced-too-large"
    title = "The announced file is over the limit"


@dataclass(frozen=True, kw_only=True)
class NewUpload:
    """Announcement of a file and of the dataset that it becomes."""

    num_bytes: int
    sha256: str | None = None
    filename: str | None = None
    name: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    """Fields of `datasets.Upload`: kind, format, columns, values, ignore, ties, split, on_error."""
    metadata: dict[str, str] = field(default_factory=dict)
    dataset_seconds: int | None = None
    """How long the dataset stays once it is made; none: until it is deleted."""


@dataclass(frozen=True, kw_only=True)
class NewPart:
    """A complete spooled part; the file stays the caller's to delete."""

    number: int
    path: Path
    num_bytes: int
    sha256: str


def create(backend: Backend, project_id: str, new: NewUpload, *, upload_id: str | None = None) -> UploadView:
    """Announce an upload. Raises AnnouncedTooLarge, TooManyUploads, InvalidRequest, and what `quotas` raise."""
    limit = min(backend.settings.max_upload_bytes, MAX_PARTS * MAX_PART_BYTES)
    if new.num_bytes > limit:
        raise AnnouncedTooLarge(f"The file has {new.num_bytes:,} bytes; {limit:,} are allowed. Split it.")
    check_names(intake.check_options(_check_fields(new.options, new.filename), backend.settings))
    require_disk(backend.settings, new.num_bytes, "the announced file")
    chosen = upload_id or new_id("upl")

    def work(session: Session) -> UploadView:
        known = owned.find(session, Upload, project_id, chosen)
        if known is not None:
            return _view(session, known)
        quotas.require_room(session, project_id, new.num_bytes)
        if upload_rows.count_open(session, project_id) >= MAX_OPEN_UPLOADS:
            raise TooManyUploads(
                f"{MAX_OPEN_UPLOADS} uploads are open. Complete or delete some; each ends by itself a day after its "
                "last part."
            )
        upload = Upload(
            id=chosen,
            project_id=project_id,
            status=UploadStatus.OPEN,
            name=new.name,
            filename=new.filename,
            num_bytes=new.num_bytes,
            sha256=new.sha256,
            options=new.options,
            user_metadata=new.metadata,
            dataset_seconds=new.dataset_seconds,
            expires_at=database_after(KEPT_SECONDS),
            created_at=database_now(),
        )
        session.add(upload)
        session.flush()
        session.refresh(upload)
        audit.note(session, project_id, "upload.create", chosen, num_bytes=new.num_bytes)
        return _view(session, upload)

    return backend.database.write(work)


@reads
def get(session: Session, project_id: str, upload_id: str) -> UploadView:
    return _view(session, _find(session, project_id, upload_id))


@reads
def require_open(session: Session, project_id: str, upload_id: str) -> None:
    """Check before a part's bytes are received. Raises UploadNotFound, UploadCompleted."""
    _require_open(_find(session, project_id, upload_id))


def put_part(backend: Backend, project_id: str, upload_id: str, part: NewPart) -> UploadPartView:
    """Store a part; one of the same number is replaced.

    Raises InvalidRequest where it goes beyond the announced size, UploadNotFound, UploadCompleted, UploadAssembling.
    """
    key = keys.upload_part(project_id, upload_id, part.number, part.sha256)
    backend.store.put_file(key, part.path, is_final=True)
    replaced: list[str] = []

    def work(session: Session) -> UploadPartView:
        replaced.clear()
        upload = lock_open(session, project_id, upload_id)
        require_no_assembly(session, upload_id)
        row = upload_rows.find_part(session, upload_id, part.number)
        others = upload_rows.sum_bytes(session, upload_id) - (row.num_bytes if row else 0)
        if others + part.num_bytes > upload.num_bytes:
            raise InvalidRequest(
                f"With this part the upload would have {others + part.num_bytes:,} bytes; "
                f"{upload.num_bytes:,} were announced."
            )
        if row is None:
            row = UploadPart(upload_id=upload_id, number=part.number, num_bytes=0, sha256=part.sha256)
            session.add(row)
        elif row.sha256 != part.sha256:
            replaced.append(row.sha256)
        row.num_bytes, row.sha256 = part.num_bytes, part.sha256
        upload.expires_at = database_after(KEPT_SECONDS)
        return UploadPartView(number=part.number, num_bytes=part.num_bytes, sha256=part.sha256)

    try:
        view = backend.database.write(work)
    except (NotFound, Conflict, InvalidRequest, UploadAssembling):
        if not _is_part_known(backend, upload_id, part):
            backend.store.delete(key)
        raise
    # During a backup it stays until the upload is over: the backup's rows may name it.
    is_held = bool(replaced) and backend.database.read(backups.is_garbage_held)
    for sha256 in () if is_held else replaced:
        backend.store.delete(keys.upload_part(project_id, upload_id, part.number, sha256))
    return view


@dataclass(frozen=True, kw_only=True)
class Assembly:
    """How the parts make the file, where the client says so."""

    numbers: Sequence[int]
    """Numbers of the parts, in the order of the file; all others are deleted."""
    md5: str | None = None
    """MD5 of the whole file, hexadecimal."""


def complete(
    backend: Backend, project_id: str, upload_id: str, *, is_later: bool = False, assembly: Assembly | None = None
) -> DatasetView:
    """Join the parts and create the dataset from them. A repeated call answers the same dataset.

    Raises UploadIncomplete, ChecksumMismatch, UploadAssembling where another call is at it, and what `datasets.create`
    raises; a refused file's upload is let go of.
    """
    token = new_suffix()
    upload, parts = backend.database.write(
        lambda session: _begin_completion(session, project_id, upload_id, assembly, token)
    )
    dataset_id = upload.dataset_id or ""
    if upload.status is UploadStatus.COMPLETED:
        return datasets.get(backend, project_id, dataset_id)
    require_disk(backend.settings, upload.num_bytes, "putting the parts together")
    take = intake.create_later if is_later else intake.create
    with scratch_folder(backend.settings, "assemble") as folder:
        path = folder / "file"
        try:
            assemble(backend, upload, parts, path, assembly.md5 if assembly else None)
        finally:
            hold_parts(backend, upload_id, token, None)
        file = intake.Upload(
            path=path,
            filename=upload.filename or upload.name or UNNAMED,
            name=upload.name,
            metadata=upload.user_metadata,
            seconds=upload.dataset_seconds,
            held_as=upload.id,
            **_upload_options(upload.options),
        )
        try:
            view = take(backend, project_id, file, dataset_id=dataset_id)
        except (DatasetRejected, DatasetTooLarge, DatasetUnsupported):
            delete(backend, project_id, upload_id)
            raise
    _conclude(backend, project_id, upload_id)
    return view


@writes
def delete(session: Session, project_id: str, upload_id: str) -> None:
    upload = _known(owned.lock(session, Upload, upload_id, project_id), upload_id)
    garbage.add_garbage(session, project_id, keys.upload_prefix(project_id, upload_id), "upload deleted")
    upload_rows.delete_upload(session, upload)
    audit.note(session, project_id, "upload.delete", upload_id)


@writes
def let_go_of_expired(session: Session) -> int:
    """Delete abandoned uploads, and completed ones after a day; return how many."""
    expired = upload_rows.list_expired(session, _MAX_COLLECTED)
    for upload in expired:
        prefix = keys.upload_prefix(upload.project_id, upload.id)
        garbage.add_garbage(session, upload.project_id, prefix, "upload abandoned")
        upload_rows.delete_upload(session, upload)
    return len(expired)


def _begin_completion(
    session: Session, project_id: str, upload_id: str, assembly: Assembly | None, token: str
) -> tuple[Upload, list[UploadPart]]:
    upload = _known(owned.lock(session, Upload, upload_id, project_id), upload_id)
    parts = upload_rows.list_parts(session, upload_id)
    if upload.status is UploadStatus.OPEN:
        if assembly is None:
            _require_all(upload, parts)
        else:
            parts = _chosen(upload, parts, assembly.numbers)
        if upload.assembler != token:  # else the answer to the commit was lost
            require_no_assembly(session, upload_id)
        upload.assembler, upload.assembling_until = token, database_after(ASSEMBLING_SECONDS)
        upload.dataset_id = upload.dataset_id or new_id("ds")
        upload.expires_at = database_after(KEPT_SECONDS)
    session.flush()
    session.refresh(upload)
    return upload, parts


def _chosen(upload: Upload, parts: list[UploadPart], numbers: Sequence[int]) -> list[UploadPart]:
    sent = {part.number: part for part in parts if part.num_bytes}
    if not sent.keys() >= {*numbers} or len({*numbers}) < len(numbers):
        raise UploadIncomplete("Each part is to be named once, and must have been sent.")
    chosen = [sent[number] for number in numbers]
    received = sum(part.num_bytes for part in chosen)
    if received != upload.num_bytes:
        raise UploadIncomplete(f"The parts named have {received:,} bytes; {upload.num_bytes:,} were announced.")
    return chosen


def _require_all(upload: Upload, parts: list[UploadPart]) -> None:
    numbers = {part.number for part in parts}
    missing = [number for number in range(1, max(numbers, default=1)) if number not in numbers]
    received = sum(part.num_bytes for part in parts)
    if missing:
        shown = ", ".join(map(str, missing[:10])) + (" …" if len(missing) > 10 else "")
        raise UploadIncomplete(f"These parts are missing: {shown}.")
    if received < upload.num_bytes:
        raise UploadIncomplete(
            f"{received:,} of {upload.num_bytes:,} bytes are there; send the parts from {len(parts) + 1} on."
        )


@writes
def _conclude(session: Session, project_id: str, upload_id: str) -> None:
    upload = owned.lock(session, Upload, upload_id, project_id)
    if upload is not None and upload.status is UploadStatus.OPEN:
        upload.status = UploadStatus.COMPLETED
        upload.expires_at = database_after(KEPT_SECONDS)
        upload_rows.delete_parts(session, upload_id)
        garbage.add_garbage(session, project_id, keys.upload_prefix(project_id, upload_id), "upload completed")


def _is_part_known(backend: Backend, upload_id: str, part: NewPart) -> bool:
    row = backend.database.read(lambda session: upload_rows.find_part(session, upload_id, part.number))
    return row is not None and row.sha256 == part.sha256


def _check_fields(options: dict[str, Any], filename: str | None) -> dict[str, Any]:
    return {**options, "content_encoding": None, "filename": filename}


def _upload_options(options: dict[str, Any]) -> dict[str, Any]:
    return {**options, "kind": DatasetKind(options["kind"])}


def _find(session: Session, project_id: str, upload_id: str) -> Upload:
    return _known(owned.find(session, Upload, project_id, upload_id), upload_id)


def _known(upload: Upload | None, upload_id: str) -> Upload:
    if upload is None:
        raise UploadNotFound(f"There is no upload {upload_id}; it may have ended a day after its last part.")
    return upload


def _require_open(upload: Upload) -> None:
    if upload.status is not UploadStatus.OPEN:
        raise UploadCompleted(f"{upload.id} has become {upload.dataset_id}.")


def lock_open(session: Session, project_id: str, upload_id: str) -> Upload:
    """Lock the row of an upload that takes parts. Raises UploadNotFound, UploadCompleted."""
    upload = _known(owned.lock(session, Upload, upload_id, project_id), upload_id)
    _require_open(upload)
    return upload


def part_bytes(num_bytes: int) -> int:
    """Return the recommended part size: whole MiB, so that there are a few hundred parts at most."""
    return min(MAX_PART_BYTES, max(_MIN_PART_BYTES, -(-num_bytes // _USUAL_PARTS // MIB) * MIB))


def _view(session: Session, upload: Upload) -> UploadView:
    parts = upload_rows.list_parts(session, upload.id)
    is_completed = upload.status is UploadStatus.COMPLETED
    return from_row(
        UploadView,
        upload,
        status=upload.status.value,
        num_received_bytes=upload.num_bytes if is_completed else sum(part.num_bytes for part in parts),
        part_bytes=part_bytes(upload.num_bytes),
        parts=[from_row(UploadPartView, part) for part in parts],
        dataset_id=upload.dataset_id if is_completed else None,
        metadata=upload.user_metadata,
    )
