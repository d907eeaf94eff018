"""Puts the parts of an upload together: one process at a time, and no part changes meanwhile."""

import hashlib
import time
from pathlib import Path

from sqlalchemy.orm import Session

from core.database.repositories import uploads as upload_rows
from core.database.tables.uploads import Upload, UploadPart
from core.domain.errors import FieldError, InvalidRequest, Unavailable
from core.services.backend import Backend
from core.services.transactions import writes
from core.storage import keys

ASSEMBLING_SECONDS = 120.0
"""Time after which a process that fell silent while it put parts together no longer holds them."""


class UploadAssembling(Unavailable):
    code = "upload-assembling"
    title = "The upload is being put together"


class ChecksumMismatch(InvalidRequest):
    code = "checksum-mismatch"
    title = "The bytes are not those that were announced"


def require_no_assembly(session: Session, upload_id: str) -> None:
    if upload_rows.is_assembling(session, upload_id):
        raise UploadAssembling(
            f"The parts of {upload_id} are being put together; ask again in a moment for the dataset that they become."
        )


@writes
def hold_parts(session: Session, upload_id: str, token: str, seconds: float | None) -> bool:
    return upload_rows.hold_assembly(session, upload_id, token, seconds)


def assemble(backend: Backend, upload: Upload, parts: list[UploadPart], path: Path, md5: str | None) -> None:
    """Write the parts to one file. Raises ChecksumMismatch, and UploadAssembling once another process has the parts."""
    held_at = time.monotonic()
    whole, whole_md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with path.open("wb") as file:
        for part in parts:
            if time.monotonic() - held_at > ASSEMBLING_SECONDS / 4:
                if not hold_parts(backend, upload.id, upload.assembler or "", ASSEMBLING_SECONDS):
                    raise UploadAssembling("Another call puts the parts together; ask again in a moment.")
                held_at = time.monotonic()
            key = keys.upload_part(upload.project_id, upload.id, part.number, part.sha256)
            digest = hashlib.sha256()
            for chunk in backend.store.read(key):
                digest.update(chunk)
                whole.update(chunk)
                if md5 is not None:
                    whole_md5.update(chunk)
                file.write(chunk)
            if digest.hexdigest() != part.sha256:
                raise ChecksumMismatch(f"Part {part.number} is damaged in the store; send it again.")
    if upload.sha256 is not None and whole.hexdigest() != upload.sha256:
        raise ChecksumMismatch(
            f"The parts together have the SHA-256 {whole.hexdigest()}, but {upload.sha256} was announced. "
            "Delete the upload and send the file again.",
            errors=[FieldError("/sha256", "is not that of the parts together")],
        )
    if md5 is not None and whole_md5.hexdigest() != md5.lower():
        raise ChecksumMismatch(
            f"The parts together have the MD5 {whole_md5.hexdigest()}, but {md5} was announced. Send the file again.",
            errors=[FieldError("/md5", "is not that of the parts together")],
        )
