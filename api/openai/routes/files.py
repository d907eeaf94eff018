"""`/v1/files`: datasets, and the result files of jobs."""

import time
from base64 import b64encode
from functools import partial
from typing import Annotated, Literal

from anyio import sleep, to_thread
from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from api.deps import MAX_LIMIT, NEEDS_KEY, BackendDep, CallerDep, IdempotencyKey, ProcessorDep, UploadDeskDep
from api.docs.openapi import binary
from api.downloads import attachment, content_response
from api.http.idempotent import Created, creating
from api.http.problems import INVALID_REQUEST, HttpError
from api.http.strict_route import RAW_BODY, StrictRoute
from api.openai.expiry import FORM_FIELDS, expiry_of_form
from api.openai.files import file_of_dataset, file_of_results, job_of_results, result_files, results_csv
from api.openai.intent import answer_intent, is_sent_again
from api.openai.objects import Deleted, File, ListPage
from api.threads import Lane, run_in
from api.uploads.arrival import arriving
from api.uploads.receive import ReceivedUpload, receive_upload
from core.domain.errors import Conflict, FieldError
from core.domain.jobs.methods import method_of
from core.services.backend import Backend
from core.services.cursors import encode_cursor
from core.services.curves import pages
from core.services.curves.pages import MetricsQuery
from core.services.datasets import contents, datasets, intake
from core.services.jobs import jobs
from core.services.views import DatasetView, JobView

CHECK_SECONDS = 20.0
"""An upload's answer waits for so long for the file to be checked: scripts use a file at once."""
_POLL_SECONDS = 0.1
_PURPOSES = ("fine-tune",)
FileId = Annotated[str, Path(description="Id of a file.", max_length=96)]
Order = Annotated[Literal["asc", "desc"], Query(description="By time of upload.")]
After = Annotated[str | None, Query(max_length=96, description="The last id of the page before.")]
PageLimit = Annotated[int, Query(ge=1, le=10_000, description=f"Items of a page; {MAX_LIMIT} at most are answered.")]

router = APIRouter(route_class=StrictRoute, dependencies=NEEDS_KEY)


class ResultsNotDeletable(Conflict):
    code = "results-not-deletable"
    title = "A result file goes with its job"


@router.post("/v1/files", response_model=File, openapi_extra={RAW_BODY: True})
async def create_file(
    request: Request,
    backend: BackendDep,
    caller: CallerDep,
    desk: UploadDeskDep,
    processor: ProcessorDep,
    key: IdempotencyKey = None,
) -> Response:
    """Take a file in; its kind and layout are recognised by what is in it."""
    desk = desk.limited(caller.max_upload_bytes)
    async with (
        arriving(
            request,
            backend,
            caller.project_id,
            desk.budget,
            desk.write_limiter,
            is_repetition=is_sent_again(request),
        ) as arrival,
        receive_upload(request, desk, arrival.watch) as received,
    ):
        upload = _upload(received, arrival.held_as)
        asked = creating(request, caller.project_id, key, received.fingerprint())

        def create(dataset_id: str | None) -> Created:
            view = intake.create_later(backend, caller.project_id, upload, dataset_id=dataset_id)
            return Created(body=file_of_dataset(view), status=200)

        work = partial(answer_intent, backend, request, caller, asked, "ds", create)
        made = await to_thread.run_sync(work, limiter=desk.check_limiter)
    processor.notify()
    file = File.model_validate_json(bytes(made.body))
    view = await until_checked(backend, caller.project_id, file.id)
    return Response(file_of_dataset(view).model_dump_json(), 200, dict(_kept_headers(made)), "application/json")


@router.get("/v1/files")
def list_files(
    backend: BackendDep,
    caller: CallerDep,
    limit: PageLimit = 10_000,
    after: After = None,
    order: Order = "desc",
    purpose: Annotated[str | None, Query(max_length=64, description="Only files of this purpose.")] = None,
) -> ListPage[File]:
    """The files, newest first unless said otherwise. Result files are listed by their own purpose only."""
    limit = min(limit, MAX_LIMIT)
    if purpose == "fine-tune-results":
        return _list_results(backend, caller.project_id, after, limit)
    if purpose not in (None, *_PURPOSES):
        return ListPage[File](data=[], has_more=False)
    if order == "asc":
        found = datasets.list_oldest_first(backend, caller.project_id, after=after, limit=limit + 1)
    else:
        cursor = encode_cursor(after) if after else None
        found = datasets.list_page(backend, caller.project_id, limit=limit + 1, cursor=cursor).data
    return ListPage[File].of([file_of_dataset(view) for view in found[:limit]], has_more=len(found) > limit)


@router.get("/v1/files/{file_id}")
def get_file(file_id: FileId, backend: BackendDep, caller: CallerDep) -> File:
    """One file, and where its check stands."""
    job_id = job_of_results(file_id)
    if job_id is None:
        return file_of_dataset(datasets.get(backend, caller.project_id, file_id))
    job = _finished(backend, caller.project_id, job_id)
    return file_of_results(job, len(_results(backend, caller.project_id, job)))


@router.get(
    "/v1/files/{file_id}/content",
    response_class=Response,
    responses=binary("The file.", "application/octet-stream", "text/csv", "text/plain")
    | {304: {"description": "The client has it already."}},
)
async def get_content(file_id: FileId, request: Request, backend: BackendDep, caller: CallerDep) -> Response:
    """The bytes as uploaded, or the curve of a job as CSV."""
    job_id = job_of_results(file_id)
    if job_id is None:
        content = await run_in(Lane.STORE, partial(contents.original, backend, caller.project_id, file_id))
        return content_response(request, content)
    job = await to_thread.run_sync(_finished, backend, caller.project_id, job_id)
    text = await to_thread.run_sync(_results, backend, caller.project_id, job)
    media_type = "text/plain" if backend.settings.openai_base64_results else "text/csv"
    return Response(text, 200, {"Content-Disposition": attachment(f"{job_id}.csv")}, media_type)


@router.delete("/v1/files/{file_id}")
def delete_file(file_id: FileId, backend: BackendDep, caller: CallerDep) -> Deleted:
    """Delete a file that no live job uses."""
    job_id = job_of_results(file_id)
    if job_id is not None:
        _finished(backend, caller.project_id, job_id)
        raise ResultsNotDeletable(f"It is the curve of {job_id}; delete the job: DELETE /jobs/{job_id}.")
    datasets.delete(backend, caller.project_id, file_id)
    return Deleted(id=file_id, object="file")


async def until_checked(backend: Backend, project_id: str, dataset_id: str) -> DatasetView:
    """The dataset once it is checked, or as it is after `CHECK_SECONDS`. Raises DatasetNotFound."""
    ends_at = time.monotonic() + CHECK_SECONDS
    while True:
        view = await run_in(Lane.WAITING, partial(datasets.get, backend, project_id, dataset_id))
        if view.status != "processing" or time.monotonic() >= ends_at:
            return view
        await sleep(_POLL_SECONDS)


def check_purpose(purpose: str) -> None:
    """Check the purpose; raises HttpError for another one than fine-tuning."""
    if purpose not in _PURPOSES:
        raise _refused("purpose", "must be `fine-tune`: this service takes data for fine-tuning only")


def _upload(received: ReceivedUpload, held_as: str | None) -> intake.Upload:
    """Return the file as services take it in; its kind is open. Raises HttpError for fields that are not valid."""
    _check_fields(received.options)
    return intake.Upload(
        path=received.path,
        filename=received.filename or "file",
        content_encoding=received.content_encoding,
        is_kind_open=True,
        seconds=expiry_of_form(received.options),
        held_as=held_as,
    )


def _check_fields(fields: dict[str, str]) -> None:
    if "purpose" not in fields:
        raise _refused("purpose", "is required; send `fine-tune`")
    check_purpose(fields["purpose"])
    for name in fields.keys() - {"purpose", *FORM_FIELDS}:
        raise _refused(name, "is an unknown field")


def _refused(name: str, why: str) -> HttpError:
    return HttpError(INVALID_REQUEST, f"{name} {why}", errors=[FieldError(f"/{name}", why)])


def _list_results(backend: Backend, project_id: str, after: str | None, limit: int) -> ListPage[File]:
    job_id = job_of_results(after) if after else None
    cursor = encode_cursor(job_id) if job_id else None
    finished: list[JobView] = []
    while True:  # clients take an empty page for the last one
        page = jobs.list_page(backend, project_id, limit=MAX_LIMIT, cursor=cursor)
        finished += [job for job in page.data if result_files(job)]
        cursor = page.next_cursor
        if cursor is None or len(finished) > limit:
            break
    files = [file_of_results(job, len(_results(backend, project_id, job))) for job in finished[:limit]]
    return ListPage[File].of(files, has_more=len(finished) > limit)


def _finished(backend: Backend, project_id: str, job_id: str) -> JobView:
    job = jobs.get(backend, project_id, job_id)
    if not result_files(job):
        raise jobs.JobNotFound(f"{job_id} has no result file yet; it is {job.status.value}.")
    return job


def _results(backend: Backend, project_id: str, job: JobView) -> bytes:
    """The curve as it is sent: CSV, which scripts written for OpenAI's own service expect in base64."""
    table = results_csv(method_of(job.spec).last, pages.all_points(backend, project_id, job.id, MetricsQuery()))
    return b64encode(table) if backend.settings.openai_base64_results else table


def _kept_headers(response: Response) -> list[tuple[str, str]]:
    return [(name, value) for name, value in response.headers.items() if name.startswith("idempotent")]
