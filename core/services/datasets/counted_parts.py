"""Numbers of parts for clients that send them one after the other and let the service count."""

import hashlib

from sqlalchemy.orm import Session

from core.database.repositories import uploads as upload_rows
from core.database.tables.uploads import UploadPart
from core.domain.errors import InvalidRequest
from core.services.datasets.parts import MAX_PART_BYTES, MAX_PARTS, lock_open
from core.services.transactions import writes

_NO_BYTES = hashlib.sha256(b"").hexdigest()


@writes
def reserve_number(session: Session, project_id: str, upload_id: str, again_sha256: str | None = None) -> int:
    """Return the number of the next part.

    Args:
        again_sha256: of a part that is sent again since its answer was lost; a part that holds these bytes keeps its
            number.

    Raises:
        InvalidRequest: the upload has `MAX_PARTS` parts.
        UploadNotFound, UploadCompleted.
    """
    lock_open(session, project_id, upload_id)
    parts = upload_rows.list_parts(session, upload_id)
    known = [part.number for part in parts if part.sha256 == again_sha256]
    if known:
        return known[-1]
    number = parts[-1].number + 1 if parts else 1
    if number > MAX_PARTS:
        raise InvalidRequest(f"An upload has at most {MAX_PARTS} parts; send parts of {MAX_PART_BYTES:,} bytes.")
    session.add(UploadPart(upload_id=upload_id, number=number, num_bytes=0, sha256=_NO_BYTES))
    return number
