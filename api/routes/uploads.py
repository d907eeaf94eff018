"""`/uploads`: large files in parts, resumable; the last step creates the dataset."""

import base64
import binascii
from functools import partial
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from api.deps import NEEDS_KEY, BackendDep, CallerDep, IdempotencyKey, ProcessorDep, UploadDeskDep
from api.docs.openapi import PART_BODY, REQUIRED_QUERY, problems
from api.http.idempotent import Created, answer_once, creating
from api.http.problems import INVALID_REQUEST, HttpError
from api.http.strict_route import UNREAD_BODY, StrictRoute
from api.routes.datasets import Prefer, answer_with_dataset
from api.schemas.datasets import CHECK_OPTIONS, Dataset, NewUpload, Sha256, Upload, UploadPart
from api.uploads.receive import clean_filename, receive_part
from core.domain.errors import FieldError
from core.services.backend import Backend
from core.services.datasets import parts
from core.services.datasets.assembly import ChecksumMismatch
from core.services.datasets.parts import MAX_PART_BYTES, MAX_PARTS
from core.services.views import DatasetView

PATH = "/uploads/"
UploadId = Annotated[str, Path(description="Id of an upload.", max_length=64)]
PartNumber = Annotated[int, Path(ge=1, le=MAX_PARTS, description="From 1, without gaps when all are there.")]
PartSha256 = Annotated[
    Sha256 | None,
    Query(
        description="SHA-256 of the part, hexadecimal. A header `Content-Digest: sha-256=:<base64>:` (RFC 9530) does "
        "instead."
    ),
]

router = APIRouter(tags=["datasets"], route_class=StrictRoute, dependencies=NEEDS_KEY)


@router.post(
    "/uploads",
    status_code=201,
    response_model=Upload,
    response_description="Open. `Location` names it.",
    responses=problems(400, 409, 413, 415, 422, 503, 507),
)
def create_upload(
    body: NewUpload, request: Request, backend: BackendDep, caller: CallerDep, key: IdempotencyKey = None
) -> Response:
    """Announce a file that comes in parts; the options are those of `POST /datasets`."""
    new = parts.NewUpload(
        num_bytes=body.num_bytes,
        sha256=body.sha256,
        filename=clean_filename(body.filename),
        name=body.name,
        options=body.model_dump(mode="json", include=CHECK_OPTIONS),
        metadata=body.metadata,
    )

    def create(upload_id: str | None) -> Created:
        view = parts.create(backend, caller.project_id, new, upload_id=upload_id)
        return Created(body=Upload.model_validate(view), headers={"Location": f"{PATH}{view.id}"})

    return answer_once(backend, creating(request, caller.project_id, key), "upl", create)


@router.get("/uploads/{upload_id}", responses=problems(404, 422, 503))
def get_upload(upload_id: UploadId, backend: BackendDep, caller: CallerDep) -> Upload:
    """Return which parts have arrived; after an interruption, send the others."""
    return Upload.model_validate(parts.get(backend, caller.project_id, upload_id))


@router.put(
    "/uploads/{upload_id}/parts/{number}",
    responses=problems(400, 404, 408, 409, 413, 415, 422, 503, 507),
    openapi_extra={UNREAD_BODY: True, REQUIRED_QUERY: ["sha256"], **PART_BODY},
)
async def put_upload_part(
    upload_id: UploadId,
    number: PartNumber,
    request: Request,
    backend: BackendDep,
    caller: CallerDep,
    desk: UploadDeskDep,
    *,
    sha256: PartSha256 = None,
) -> UploadPart:
    """Send one part, at most 64 MiB. A repeated part replaces the earlier one."""
    announced = sha256 or _announced_digest(request)
    await to_thread.run_sync(parts.require_open, backend, caller.project_id, upload_id, limiter=desk.write_limiter)
    async with receive_part(request, desk, MAX_PART_BYTES) as file:
        if file.num_bytes == 0:
            raise HttpError(INVALID_REQUEST, "The part has no bytes; send those of the file.")
        if file.sha256 != announced:
            raise ChecksumMismatch(
                f"The part came as {file.num_bytes:,} bytes with the SHA-256 {file.sha256}, not the announced one. "
                "Send it again.",
                errors=[FieldError("/sha256", "is not that of the bytes that came")],
            )
        part = parts.NewPart(number=number, path=file.path, num_bytes=file.num_bytes, sha256=file.sha256)
        work = partial(parts.put_part, backend, caller.project_id, upload_id, part)
        return UploadPart.model_validate(await to_thread.run_sync(work, limiter=desk.write_limiter))


@router.post(
    "/uploads/{upload_id}/complete",
    status_code=201,
    response_model=Dataset,
    response_description="Checked and stored. `Location` names the dataset.",
    responses={
        202: {"model": Dataset, "description": "Stored, and being checked: poll it. `Location` names the dataset."},
        **problems(404, 409, 413, 415, 422, 503, 507),
    },
)
async def complete_upload(
    upload_id: UploadId,
    request: Request,
    backend: BackendDep,
    caller: CallerDep,
    desk: UploadDeskDep,
    processor: ProcessorDep,
    *,
    key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Response:
    """Join the parts and check the file, as `POST /datasets` does. A repetition answers the same dataset."""
    asked = creating(request, caller.project_id, key).with_lease(backend.settings.check_timeout_seconds)
    is_later = "respond-async" in (prefer or "").lower()
    make = partial(_complete, backend, asked.project_id, upload_id, is_later=is_later)
    work = partial(answer_with_dataset, backend, asked, make, is_later=is_later)
    response = await to_thread.run_sync(work, limiter=desk.check_limiter)
    processor.notify()
    return response


@router.delete("/uploads/{upload_id}", status_code=204, responses=problems(404, 422, 503))
def delete_upload(upload_id: UploadId, backend: BackendDep, caller: CallerDep) -> None:
    """Delete the parts. A dataset made of them stays."""
    parts.delete(backend, caller.project_id, upload_id)


def _complete(backend: Backend, project_id: str, upload_id: str, _: str | None, *, is_later: bool) -> DatasetView:
    return parts.complete(backend, project_id, upload_id, is_later=is_later)


def _announced_digest(request: Request) -> str:
    """Return the digest of the header `Content-Digest`. Raises HttpError without one."""
    for member in request.headers.get("content-digest", "").split(","):
        name, _, value = member.strip().partition("=")
        if name.lower() == "sha-256" and value[:1] == value[-1:] == ":":
            try:
                return base64.b64decode(value[1:-1], validate=True).hex()
            except (binascii.Error, ValueError):
                break
    error = FieldError("/sha256", "is required: the SHA-256 of the part, hexadecimal")
    raise HttpError(INVALID_REQUEST, f"{error.pointer}: {error.detail}", errors=[error])
