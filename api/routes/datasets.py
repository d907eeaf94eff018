"""`/datasets`: upload, read, delete."""

from collections.abc import Callable
from functools import partial
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Header, Path, Query, Request
from starlette.responses import Response

from api.deps import (
    DEFAULT_LIMIT,
    NEEDS_KEY,
    BackendDep,
    CallerDep,
    Cursor,
    IdempotencyKey,
    Limit,
    ProcessorDep,
    UploadDeskDep,
)
from api.docs.openapi import UPLOAD_FORM, UPLOAD_RAW, Responses, binary, problems
from api.downloads import content_response, stream_response, tar_stream_response
from api.http.idempotent import Created, CreatingRequest, answer_once, creating
from api.http.strict_route import RAW_BODY, StrictRoute
from api.http.template_kwargs import parse_template_kwargs
from api.schemas.base import Page
from api.schemas.datasets import (
    AnsweredPrompt,
    ContentFormat,
    Dataset,
    DatasetOptions,
    DatasetPatch,
    DatasetRow,
    Issue,
    TokenStatistics,
)
from api.threads import Lane, in_lane, run_in
from api.uploads.arrival import arriving
from api.uploads.options import parse_options
from api.uploads.receive import ReceivedUpload, receive_upload
from core.datasets.result import DatasetRejected, DatasetTooLarge, DatasetUnsupported
from core.domain.errors import DomainError, FieldError
from core.domain.issue_codes import IssueCode
from core.domain.json_numbers import MAX_WHOLE
from core.services.backend import Backend
from core.services.datasets import answers, contents, datasets, intake, previews
from core.services.datasets.row_pages import RowsQuery
from core.services.views import DatasetView

UNNAMED = "dataset"
FIELD_OF_REASON = {
    IssueCode.WRONG_KIND: "/kind",
    IssueCode.UNKNOWN_FORMAT: "/format",
    IssueCode.UNSUPPORTED_FORMAT: "/format",
    IssueCode.MISSING_COLUMN: "/columns",
    IssueCode.NO_PROMPT_COLUMN: "/columns",
    IssueCode.VERDICT_UNCLEAR: "/values",
    IssueCode.FIELD_TO_DECIDE: "/columns",
    IssueCode.SPLIT_TO_CHOOSE: "/split",
}
"""What to change when a file is refused; else it is the file."""

DatasetId = Annotated[
    str, Path(description="Id of a dataset, which means its newest version, or `ds_…@<version>`.", max_length=64)
]
Prefer = Annotated[str | None, Header(description="`respond-async`: answer 202 at once; poll until it is `ready`.")]

BASE_MODEL = Query(
    min_length=1, max_length=255, description="A name from GET /models, or job_… / job_…@<checkpoint id>."
)
BaseModelParam = Annotated[str | None, BASE_MODEL]
DEFAULT_MAX_LENGTH = 1024
MaxLengthParam = Annotated[
    int, Query(ge=1, le=2**20, description="The job's `max_length`, in tokens, which rows are compared with.")
]

LineParam = Annotated[int | None, Query(ge=1, le=MAX_WHOLE, description="Rows from this line of the uploaded file on.")]
RowSearchParam = Annotated[
    str | None,
    Query(
        min_length=1,
        max_length=200,
        description="Only rows that hold this text, upper and lower case being one. A page looks through 64 MiB: it "
        "may be empty and have a `next_cursor`.",
    ),
]
AnswerSearchParam = Annotated[
    str | None,
    Query(
        min_length=1,
        max_length=200,
        description="Only prompts that hold this text, or an answer to which does; upper and lower case are one. The "
        "first 200,000 rows are looked at.",
    ),
]
CONTENT_FORMAT = Query(
    description="`original`: the file as uploaded. `parquet`: the rows. `hf`: a tar of a folder for `load_from_disk`."
)
TemplateKwargsParam = Annotated[
    str | None,
    Query(max_length=4096, description="The job's `chat_template_kwargs`, as a JSON object."),
]

router = APIRouter(tags=["datasets"], route_class=StrictRoute, dependencies=NEEDS_KEY)


TAKEN = "Checked and stored. `Location` names it."
TAKEN_LATER: Responses = {
    202: {"model": Dataset, "description": "Stored, and being checked: poll it. `Location` names it."},
    **problems(400, 408, 409, 413, 415, 422, 503, 507),
}


@router.post(
    "/datasets",
    status_code=201,
    response_model=Dataset,
    response_description=TAKEN,
    responses=TAKEN_LATER,
    openapi_extra={RAW_BODY: True, **UPLOAD_FORM},
)
async def create_dataset(
    request: Request,
    backend: BackendDep,
    caller: CallerDep,
    desk: UploadDeskDep,
    processor: ProcessorDep,
    key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Response:
    """Upload a file of preference pairs as a form. Here too it may be the raw body, as at `POST /datasets/raw`."""
    desk = desk.limited(caller.max_upload_bytes)
    async with (
        arriving(request, backend, caller.project_id, desk.budget, desk.write_limiter) as arrival,
        receive_upload(request, desk, arrival.watch) as upload,
    ):
        options = parse_options(upload.options)
        asked = creating(request, caller.project_id, key, upload.fingerprint())
        # A process that dies while it checks keeps the key for as long as a check may take.
        asked = asked.with_lease(backend.settings.check_timeout_seconds)
        work = partial(_create, backend, asked, upload, options, held_as=arrival.held_as, is_later=wants_later(prefer))
        response = await to_thread.run_sync(work, limiter=desk.check_limiter)
    processor.notify()
    return response


router.post(
    "/datasets/raw",
    name="create_dataset_from_body",
    description="Upload a file of preference pairs as the raw body, with the options as query parameters.",
    status_code=201,
    response_model=Dataset,
    response_description=TAKEN,
    responses=TAKEN_LATER,
    openapi_extra={RAW_BODY: True, **UPLOAD_RAW},
)(create_dataset)


@router.get("/datasets", responses=problems(422, 503))
def list_datasets(
    backend: BackendDep, caller: CallerDep, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> Page[Dataset]:
    """List the datasets, newest first."""
    page = datasets.list_page(backend, caller.project_id, limit=limit, cursor=cursor)
    return Page[Dataset].model_validate(page)


@router.get("/datasets/{dataset_id}", responses=problems(404, 503))
def get_dataset(dataset_id: DatasetId, backend: BackendDep, caller: CallerDep) -> Dataset:
    """Return one dataset, with the report on its file."""
    return Dataset.model_validate(datasets.get(backend, caller.project_id, dataset_id))


@router.get("/datasets/{dataset_id}/report", responses=problems(404, 422, 503))
@in_lane(Lane.STORE)
def list_dataset_issues(
    dataset_id: DatasetId, backend: BackendDep, caller: CallerDep, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> Page[Issue]:
    """List every issue found in the file, in its order."""
    page = datasets.list_issues(backend, caller.project_id, dataset_id, limit=limit, cursor=cursor)
    return Page[Issue].model_validate(page)


@router.get("/datasets/{dataset_id}/rows", responses=problems(404, 409, 422, 503), response_model_exclude_unset=True)
async def list_dataset_rows(
    dataset_id: DatasetId,
    backend: BackendDep,
    caller: CallerDep,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    *,
    line: LineParam = None,
    search: RowSearchParam = None,
    base_model: BaseModelParam = None,
    max_length: MaxLengthParam = DEFAULT_MAX_LENGTH,
    chat_template_kwargs: TemplateKwargsParam = None,
) -> Page[DatasetRow]:
    """List the rows as jobs read them, in the order of the file; with `base_model` also as that model sees them."""
    asked = (backend, caller.project_id, dataset_id)
    query = RowsQuery(limit=limit, cursor=cursor, line=line, search=search)
    if base_model is None:
        page = await run_in(Lane.STORE, partial(datasets.list_rows, *asked, query))
    else:
        seen_by = _seen_by(base_model, max_length, chat_template_kwargs)
        preview = partial(previews.preview_rows, *asked, seen_by, query)
        page = await run_in(Lane.PREVIEWS, preview)
    return Page[DatasetRow].model_validate(page)


@router.get("/datasets/{dataset_id}/answers", responses=problems(404, 409, 422, 503), response_model_exclude_unset=True)
@in_lane(Lane.STORE)
def list_dataset_answers(
    dataset_id: DatasetId,
    backend: BackendDep,
    caller: CallerDep,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    *,
    search: AnswerSearchParam = None,
) -> Page[AnsweredPrompt]:
    """List the different prompts of a dataset of responses, in their order, each with what models answered."""
    asked = (backend, caller.project_id, dataset_id)
    return Page[AnsweredPrompt].model_validate(answers.list_answers(*asked, limit=limit, cursor=cursor, search=search))


@router.get("/datasets/{dataset_id}/tokens", responses=problems(404, 409, 422, 503))
@in_lane(Lane.PREVIEWS)
def get_token_statistics(
    dataset_id: DatasetId,
    backend: BackendDep,
    caller: CallerDep,
    base_model: Annotated[str, BASE_MODEL],
    max_length: MaxLengthParam = DEFAULT_MAX_LENGTH,
    chat_template_kwargs: TemplateKwargsParam = None,
) -> TokenStatistics:
    """Return the rows' lengths in tokens of a base model, and how many a job would set aside, and why."""
    seen_by = _seen_by(base_model, max_length, chat_template_kwargs)
    found = previews.token_statistics(backend, caller.project_id, dataset_id, seen_by)
    return TokenStatistics.model_validate(found)


@router.get(
    "/datasets/{dataset_id}/content",
    response_class=Response,
    responses={
        **binary(
            "The bytes as uploaded, or the rows as asked for.",
            "application/octet-stream",
            "application/vnd.apache.parquet",
            "application/x-tar",
        ),
        **problems(404, 409, 422, 503),
    },
)
@in_lane(Lane.STORE)
def get_dataset_content(
    dataset_id: DatasetId,
    request: Request,
    backend: BackendDep,
    caller: CallerDep,
    format: Annotated[ContentFormat, CONTENT_FORMAT] = "original",
) -> Response:
    """Download the file as uploaded, or the rows as jobs read them, as Hugging Face's datasets opens them."""
    if format != "original":
        rows = contents.open_rows(backend, caller.project_id, dataset_id)
        if format == "parquet":
            return stream_response(f"{dataset_id}.parquet", contents.parquet(rows), "application/vnd.apache.parquet")
        return tar_stream_response(dataset_id, contents.folder(rows), rows.created_at)
    return content_response(request, contents.original(backend, caller.project_id, dataset_id))


@router.patch("/datasets/{dataset_id}", responses=problems(400, 404, 413, 415, 422, 503))
def patch_dataset(dataset_id: DatasetId, body: DatasetPatch, backend: BackendDep, caller: CallerDep) -> Dataset:
    """Change name or metadata."""
    return Dataset.model_validate(datasets.patch(backend, caller.project_id, dataset_id, body.changes()))


@router.delete("/datasets/{dataset_id}", status_code=204, responses=problems(404, 409, 503))
@in_lane(Lane.STORE)
def delete_dataset(dataset_id: DatasetId, backend: BackendDep, caller: CallerDep) -> None:
    """Delete a dataset that no live job uses."""
    datasets.delete(backend, caller.project_id, dataset_id)


def _seen_by(base_model: str, max_length: int, template_kwargs: str | None) -> previews.SeenBy:
    given = parse_template_kwargs(template_kwargs) if template_kwargs else {}
    return previews.SeenBy(base_model=base_model, max_length=max_length, template_kwargs=given)


def _create(
    backend: Backend,
    asked: CreatingRequest,
    upload: ReceivedUpload,
    options: DatasetOptions,
    *,
    held_as: str,
    is_later: bool,
) -> Response:
    file = intake.Upload(
        path=upload.path,
        filename=upload.filename or UNNAMED,
        content_encoding=upload.content_encoding,
        held_as=held_as,
        **options.model_dump(),
    )
    take = intake.create_later if is_later else intake.create
    return answer_with_dataset(
        backend,
        asked,
        lambda dataset_id: take(backend, asked.project_id, file, dataset_id=dataset_id),
        is_later=is_later,
    )


def wants_later(prefer: str | None) -> bool:
    """Whether the client asks to be answered before the file is checked."""
    return "respond-async" in (prefer or "").lower()


def answer_with_dataset(
    backend: Backend,
    asked: CreatingRequest,
    make: Callable[[str | None], DatasetView],
    *,
    is_later: bool,
    cause: str | None = None,
) -> Response:
    """Answer a creation; `make` gets the dataset's id if fixed. A refused file says what to change.

    `cause` is the field of the request that the rows came from, where there is no file.
    """

    def create(dataset_id: str | None) -> Created:
        view = make(dataset_id)
        headers = {"Location": f"/datasets/{view.id}"} | ({"Preference-Applied": "respond-async"} if is_later else {})
        return Created(body=Dataset.model_validate(view), status=202 if is_later else 201, headers=headers)

    try:
        return answer_once(backend, asked, "ds", create)
    except (DatasetRejected, DatasetTooLarge, DatasetUnsupported) as error:
        _name_cause(error, cause)
        raise


def _name_cause(error: DomainError, cause: str | None) -> None:
    """Name the field of the request to change for a refused file."""
    if not error.errors:
        pointer = FIELD_OF_REASON.get(error.context.get("reason", ""), "/file") if cause is None else cause
        error.errors = [FieldError(pointer, error.detail)]
