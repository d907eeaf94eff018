"""`/jobs/{id}/pairs`: the report of every pair; `/jobs/{id}/rerun`: the job again with some pairs changed."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from api.access.callers import Caller
from api.deps import DEFAULT_LIMIT, NEEDS_KEY, BackendDep, CallerDep, Cursor, IdempotencyKey
from api.docs.openapi import Responses, problems
from api.downloads import MeteredStream, attachment
from api.http.idempotent import Created, answer_once, creating
from api.http.strict_route import StrictRoute
from api.routes.jobs import JobId
from api.schemas.base import Page
from api.schemas.job_records import Split
from api.schemas.jobs import Job
from api.schemas.pairs import Pair, PairFlag, Rerun
from api.threads import Lane, in_lane
from core.services.backend import Backend
from core.services.jobs import pair_reports, repeats
from core.services.jobs.pair_reports import PairsQuery
from core.services.jobs.repeats import DataChange

MAX_PAIRS = 1000
_CSV, _JSONL = "text/csv", "application/x-ndjson"
_KEYS = "line|margin|reference_margin|margin_first|gradient_weight|mislabelled_score"

router = APIRouter(tags=["artifact"], route_class=StrictRoute, dependencies=NEEDS_KEY)

SortParam = Annotated[
    str, Query(pattern=f"^-?({_KEYS})$", description="`-` for the largest first; unknown values come last.")
]
FlagParam = Annotated[PairFlag | None, Query(description="Only pairs with this flag.")]
SplitParam = Annotated[Split | None, Query(description="Only pairs of this split.")]
FormatParam = Annotated[Literal["json", "csv", "jsonl"], Query(include_in_schema=False)]
"""What `/jobs/{id}/pairs.csv` and `.jsonl` are for; kept for those who ask this way."""
PairsLimit = Annotated[int, Query(ge=1, le=MAX_PAIRS, description="Pairs of a page.")]


def _all_of_them(media_type: str) -> Responses:
    content = {media_type: {"schema": {"type": "string"}}}
    return {200: {"description": "All of them at once.", "content": content}, **problems(404, 422, 503)}


@router.get(
    "/jobs/{job_id}/pairs",
    response_model=Page[Pair],
    responses=problems(404, 422, 503),
)
@in_lane(Lane.STORE)
def list_job_pairs(
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
    return (_csv if format == "csv" else _jsonl)(backend, caller, job_id, query)


@router.get("/jobs/{job_id}/pairs.csv", response_class=Response, responses=_all_of_them(_CSV))
@in_lane(Lane.STORE)
def get_job_pairs_csv(
    job_id: JobId,
    backend: BackendDep,
    caller: CallerDep,
    sort: SortParam = "line",
    flag: FlagParam = None,
    split: SplitParam = None,
) -> Response:
    """Download all pairs of a job that has published as CSV, with margins, rewards and flags."""
    return _csv(backend, caller, job_id, PairsQuery(sort=sort, flag=flag, split=split))


@router.get("/jobs/{job_id}/pairs.jsonl", response_class=Response, responses=_all_of_them(_JSONL))
@in_lane(Lane.STORE)
def get_job_pairs_jsonl(
    job_id: JobId,
    backend: BackendDep,
    caller: CallerDep,
    sort: SortParam = "line",
    flag: FlagParam = None,
    split: SplitParam = None,
) -> Response:
    """Download all pairs of a job that has published, a JSON object a line as `GET /jobs/{id}/pairs` has them."""
    return _jsonl(backend, caller, job_id, PairsQuery(sort=sort, flag=flag, split=split))


def _csv(backend: Backend, caller: Caller, job_id: str, query: PairsQuery) -> Response:
    pairs = pair_reports.select(backend, caller.project_id, job_id, query)
    headers = {"Content-Disposition": attachment(f"{job_id}-pairs.csv")}
    return MeteredStream(pair_reports.to_csv(pairs), 200, headers, _CSV)


def _jsonl(backend: Backend, caller: Caller, job_id: str, query: PairsQuery) -> Response:
    pairs = pair_reports.select(backend, caller.project_id, job_id, query)
    headers = {"Content-Disposition": attachment(f"{job_id}-pairs.jsonl")}
    return MeteredStream(pair_reports.to_jsonl(pairs), 200, headers, _JSONL)


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
