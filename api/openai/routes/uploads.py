"""`/v1/uploads`: large files in parts, as OpenAI's clients send them."""

import re
from functools import partial
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Path, Request
from pydantic import Field
from starlette.responses import Response

from api.deps import NEEDS_KEY, BackendDep, CallerDep, IdempotencyKey, ProcessorDep, UploadDeskDep
from api.http.idempotent import Created, creating
from api.http.problems import INVALID_REQUEST, HttpError
from api.http.strict_route import UNREAD_BODY, StrictRoute
from api.openai.expiry import ExpiresAfter
from api.openai.files import file_of_dataset, seconds
from api.openai.intent import answer_intent, is_sent_again
from api.openai.objects import File, Upload, UploadPart
from api.openai.routes.files import check_purpose, until_checked
from api.uploads.arrival import disk_room
from api.uploads.receive import clean_filename, receive_upload
from core.domain.dataset_rows import DatasetKind
from core.domain.errors import FieldError
from core.domain.jobs.job_spec import Name, Payload
from core.domain.json_numbers import MAX_WHOLE, WHOLE
from core.services.datasets import counted_parts, parts
from core.services.datasets.parts import MAX_PARTS
from core.services.views import UploadView

PATH = "/v1/uploads/"
_PART = re.compile(r"part_([0-9a-z]{1,64})_(\d{1,4})")
UploadId = Annotated[str, Path(description="Id of an upload.", max_length=64)]

router = APIRouter(route_class=StrictRoute, dependencies=NEEDS_KEY)


class NewUpload(Payload):
    """The body of `POST /v1/uploads`."""

    bytes: Annotated[int, Field(ge=1, le=MAX_WHOLE), WHOLE]
    filename: Name
    mime_type: Name
    purpose: Name
    expires_after: ExpiresAfter | None = None


class Completion(Payload):
    """The body of `POST /v1/uploads/{id}/complete`."""

    part_ids: Annotated[list[Name], Field(min_length=1, max_length=MAX_PARTS)]
    md5: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{32}$")] | None = None


@router.post("/v1/uploads", response_model=Upload)
def create_upload(
    body: NewUpload, request: Request, backend: BackendDep, caller: CallerDep, key: IdempotencyKey = None
) -> Response:
    """Announce a file that comes in parts."""
    check_purpose(body.purpose)
    new = parts.NewUpload(
        num_bytes=body.bytes,
        filename=clean_filename(body.filename),
        dataset_seconds=body.expires_after.seconds if body.expires_after else None,
        options={"kind": DatasetKind.PREFERENCE.value, "is_kind_open": True},
    )

    def create(upload_id: str | None) -> Created:
        view = parts.create(backend, caller.project_id, new, upload_id=upload_id)
        return Created(body=_shown(view), status=200)

    asked = creating(request, caller.project_id, key)
    return answer_intent(backend, request, caller, asked, "upl", create)


@router.post("/v1/uploads/{upload_id}/parts", openapi_extra={UNREAD_BODY: True})
async def add_part(
    upload_id: UploadId, request: Request, backend: BackendDep, caller: CallerDep, desk: UploadDeskDep
) -> UploadPart:
    """Take one part, at most 64 MiB, as the field `data` of a form."""
    limited = desk.limited(parts.MAX_PART_BYTES)
    await to_thread.run_sync(parts.require_open, backend, caller.project_id, upload_id, limiter=desk.write_limiter)
    async with (
        disk_room(request, desk.budget, desk.write_limiter) as watch,
        receive_upload(request, limited, watch, file_field="data") as received,
    ):
        if received.num_bytes == 0:
            raise _refused("data", "has no bytes")

        def keep() -> int:
            again = received.sha256 if is_sent_again(request) else None
            number = counted_parts.reserve_number(backend, caller.project_id, upload_id, again)
            part = parts.NewPart(
                number=number, path=received.path, num_bytes=received.num_bytes, sha256=received.sha256
            )
            parts.put_part(backend, caller.project_id, upload_id, part)
            return number

        number = await to_thread.run_sync(keep, limiter=desk.write_limiter)
    view = await to_thread.run_sync(parts.get, backend, caller.project_id, upload_id)
    part_id = f"part_{upload_id.removeprefix('upl_')}_{number}"
    return UploadPart(id=part_id, created_at=seconds(view.created_at), upload_id=upload_id)


@router.post("/v1/uploads/{upload_id}/complete")
async def complete_upload(
    upload_id: UploadId,
    body: Completion,
    backend: BackendDep,
    caller: CallerDep,
    desk: UploadDeskDep,
    processor: ProcessorDep,
) -> Upload:
    """Put the parts together, in the order of `part_ids`. Sent again, it answers the same file."""
    await to_thread.run_sync(parts.get, backend, caller.project_id, upload_id)
    numbers = [_number(upload_id, part_id, position) for position, part_id in enumerate(body.part_ids)]
    assembly = parts.Assembly(numbers=numbers, md5=body.md5)
    work = partial(parts.complete, backend, caller.project_id, upload_id, is_later=True, assembly=assembly)
    dataset = await to_thread.run_sync(work, limiter=desk.check_limiter)
    processor.notify()
    view = await to_thread.run_sync(parts.get, backend, caller.project_id, upload_id)
    return _shown(view, file_of_dataset(await until_checked(backend, caller.project_id, dataset.id)))


@router.post("/v1/uploads/{upload_id}/cancel")
def cancel_upload(upload_id: UploadId, backend: BackendDep, caller: CallerDep) -> Upload:
    """Let go of the parts. A file made of them stays."""
    view = parts.get(backend, caller.project_id, upload_id)
    if view.status == "completed":
        raise parts.UploadCompleted(f"{upload_id} has become {view.dataset_id}.")
    parts.delete(backend, caller.project_id, upload_id)
    return _shown(view).model_copy(update={"status": "cancelled"})


def _shown(view: UploadView, file: File | None = None) -> Upload:
    return Upload(
        id=view.id,
        bytes=view.num_bytes,
        created_at=seconds(view.created_at),
        expires_at=seconds(view.expires_at),
        filename=view.filename or "",
        status="completed" if view.status == "completed" else "pending",
        file=file,
    )


def _number(upload_id: str, part_id: str, position: int) -> int:
    found = _PART.fullmatch(part_id)
    if found is None or f"upl_{found[1]}" != upload_id:
        raise _refused(f"part_ids/{position}", f"{part_id} is not a part of {upload_id}")
    return int(found[2])


def _refused(name: str, why: str) -> HttpError:
    return HttpError(INVALID_REQUEST, f"{name}: {why}", errors=[FieldError(f"/{name}", why)])
