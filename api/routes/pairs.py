"""`/jobs/{id}/pairs`: the report of every pair; `/jobs/{id}/rerun`: the job again with some pairs changed."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from api.deps import DEFAULT_LIMIT, NEEDS_KEY, BackendDep, CallerDep, Cursor, IdempotencyKey
from api.docs.openapi import problems
from api.downloads import MeteredStream, attachment
from api.http.idempotent import Created, answer_once, creating
from api.http.strict_route import StrictRoute
from api.routes.jobs import JobId
from api.schemas.base import Page
from api.schemas.jobs import Job
from api.schemas.pairs import Flag, Pair, Rerun
from api.threads import Lane, in_lane
from core.services.jobs import pair_reports, repeats
from core.services.jobs.pair_reports import PairsQuery
from core.services.jobs.repeats import DataChange

MAX_PAIRS = 1000
_MEDIA_TYPES = {"csv": "text/csv", "jsonl": "application/x-ndjson"}
_KEYS = "line|margin|reference_margin|margin_first|gradient_weight|mislabelled_score"

router = APIRouter(tags=["artifact"], route_class=StrictRoute, dependencies=NEEDS_KEY)

SortParam = Annotated[
    str, Query(pattern=f"^-?({_KEYS})$", description="`-` for the largest first; unknown values come last.")
]
FlagParam = Annotated[Flag | None, Query(description="Only pairs with this flag.")]
SplitParam = Annotated[Literal["train", "validation"] | None, Query(description="Only pairs of this split.")]
FormatParam = Annotated[Literal["json", "csv", "jsonl"], Query(description="`csv`, `jsonl`: all of them at once.")]
PairsLimit = Annotated[int, Query(ge=1, le=MAX_PAIRS, description="Pairs of a page.")]


@router.get(
    "/jobs/{job_id}/pairs",
    response_model=Page[Pair],
    responses={
        200: {"content": {media: {"schema": {"type": "string"}} for media in _MEDIA_TYPES.values()}},
        **problems(404, 422, 503),
    },
)
@in_lane(Lane.STORE)
def list_pairs(
    job_id: JobId,
    backend: BackendDep,
    caller: CallerDep,
    sort: SortParam = "line",
    flag: FlagParam = None,
    split: SplitParam = None,
    format: FormatParam = "json",
    limit: PairsLimit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Page[Pair] | Response:
    """List the pairs of a job that has published, with margins, rewards and flags."""
    query = PairsQuery(sort=sort, flag=flag, split=split)
    if format == "json":
        found = pair_reports.page(backend, caller.project_id, job_id, query, limit=limit, cursor=cursor)
        return Page[Pair].model_validate(found)
    pairs = pair_reports.select(backend, caller.project_id, job_id, query)
    content = pair_reports.to_csv(pairs) if format == "csv" else pair_reports.to_jsonl(pairs)
    headers = {"Content-Disposition": attachment(f"{job_id}-pairs.{format}")}
    return MeteredStream(content, 200, headers, _MEDIA_TYPES[format])


@router.post(
    "/jobs/{job_id}/rerun",
    status_code=201,
    response_model=Job,
    response_description="A new job. `Location` names it.",
    responses=problems(400, 404, 409, 413, 415, 422, 503),
)
def rerun_job(
    job_id: JobId, body: Rerun, request: Request, backend: BackendDep, caller: CallerDep, key: IdempotencyKey = None
) -> Response:
    """Create the same job with further pairs left out or swapped."""

    def create(new_id: str | None) -> Created:
        change = DataChange(exclude_lines=body.exclude_lines, swap_lines=body.swap_lines)
        view = repeats.rerun(backend, caller.project_id, job_id, change, new_job_id=new_id)
        return Created(body=Job.model_validate(view), headers={"Location": f"/jobs/{view.id}"})

    return answer_once(backend, creating(request, caller.project_id, key), "job", create)
