"""Records of a job: live curves, events, samples, log."""

from typing import Annotated, Literal

from anyio import to_thread
from fastapi import APIRouter, Header, Query
from starlette.responses import Response

from api.access.callers import Caller
from api.deps import MAX_SEQ, NEEDS_KEY, After, BackendDep, CallerDep, FeedsDep, PollsDep
from api.docs.openapi import Responses, problems
from api.downloads import attachment
from api.http.strict_route import StrictRoute
from api.live.frames import ID_PATTERN, parse_id
from api.live.stream import EventStream
from api.routes.jobs import JobId
from api.schemas.job_records import Events, MetricsPage, Samples, Split, StreamData
from core.domain.jobs.job_state import Stage
from core.services.backend import Backend
from core.services.curves import pages
from core.services.curves.pages import MAX_PAGE_POINTS, MetricsQuery
from core.services.jobs import events, jobs, logs

MAX_NAMES_CHARS = 2048
MAX_EVENTS = 500

router = APIRouter(tags=["jobs"], route_class=StrictRoute, dependencies=NEEDS_KEY, responses=problems(404, 422, 503))

StageParam = Annotated[Stage | None, Query(description="Only points of this stage.")]
SplitParam = Annotated[Split | None, Query(description="Only points of this split.")]
NamesParam = Annotated[
    str | None,
    Query(max_length=MAX_NAMES_CHARS, description="Only these values, with commas: `loss,rewards/margins`."),
]
MaxPointsParam = Annotated[
    int | None,
    Query(ge=2, le=MAX_PAGE_POINTS, description="Thin the curves to so many points, keeping each curve's extremes."),
]
FormatParam = Annotated[Literal["json", "csv"], Query(include_in_schema=False)]
"""What `/jobs/{id}/metrics.csv` is for; kept for those who ask this way."""

StreamCursor = Annotated[
    str | None,
    Query(
        pattern=ID_PATTERN,
        description="`<metric seq>.<event seq>`: only what is newer, for a client that holds the rest already. "
        "`Last-Event-ID` goes before it.",
    ),
]
LastEventId = Annotated[
    str | None,
    Header(alias="Last-Event-ID", pattern=ID_PATTERN, description="`id` of the last event read: replay from there."),
]
LOG_END = "Preftune-Log-End"
"""Header: `after` of the next look."""
LOG: Responses = {
    200: {
        "description": "UTF-8, at most 1 MiB: the tail, with a first line that says what is cut. Each training begins "
        "with a line of its own.",
        "content": {"text/plain": {"schema": {"type": "string"}}},
        "headers": {
            LOG_END: {
                "description": "Bytes printed so far: `after` of the next look.",
                "required": True,
                "schema": {"type": "integer"},
            }
        },
    }
}
LogAfter = Annotated[int, Query(ge=0, le=MAX_SEQ, description=f"`{LOG_END}` of the answer before: only what is newer.")]
STREAM: Responses = {
    200: {
        "description": "Until the job ends.",
        "content": {"text/event-stream": {"schema": {"$ref": f"#/components/schemas/{StreamData.__name__}"}}},
    }
}


@router.get("/jobs/{job_id}/metrics", response_model=MetricsPage)
async def get_job_metrics(
    job_id: JobId,
    backend: BackendDep,
    polls: PollsDep,
    caller: CallerDep,
    stage: StageParam = None,
    split: SplitParam = None,
    names: NamesParam = None,
    after: After = 0,
    max_points: MaxPointsParam = None,
    format: FormatParam = "json",
) -> Response:
    """List points of the live curves, in the order in which they came; `after` gives only newer ones."""
    query = _query(stage, split, names, after=after, max_points=max_points)
    if format == "csv":
        return await to_thread.run_sync(_csv, backend, caller, job_id, query)
    # Polled more than anything else: written without a second look at every value.
    page = await polls.page(caller.project_id, job_id, query)
    return Response(page, media_type="application/json")


@router.get(
    "/jobs/{job_id}/metrics.csv",
    response_class=Response,
    responses={200: {"description": "One row a point.", "content": {"text/csv": {"schema": {"type": "string"}}}}},
)
def get_job_metrics_csv(
    job_id: JobId,
    backend: BackendDep,
    caller: CallerDep,
    *,
    stage: StageParam = None,
    split: SplitParam = None,
    names: NamesParam = None,
    after: After = 0,
    max_points: MaxPointsParam = None,
) -> Response:
    """Download the live curves as CSV: one row a point, all of them."""
    return _csv(backend, caller, job_id, _query(stage, split, names, after=after, max_points=max_points))


def _query(
    stage: Stage | None, split: Split | None, names: str | None, *, after: int, max_points: int | None
) -> MetricsQuery:
    chosen = tuple(name.strip() for name in (names or "").split(",") if name.strip())
    return MetricsQuery(after=after, stage=stage, split=split, names=chosen, max_points=max_points)


def _csv(backend: Backend, caller: Caller, job_id: str, query: MetricsQuery) -> Response:
    text = pages.csv_text(backend, caller.project_id, job_id, query)
    headers = {"Content-Disposition": attachment(f"{job_id}-metrics.csv")}
    return Response(text, 200, headers, "text/csv")


@router.get("/jobs/{job_id}/stream", response_class=Response, responses=STREAM)
async def stream_job(
    job_id: JobId,
    backend: BackendDep,
    caller: CallerDep,
    feeds: FeedsDep,
    after: StreamCursor = None,
    last_event_id: LastEventId = None,
) -> Response:
    """Stream the job as server-sent events: `metric` (an array of points), `status`, `event`, `reset`, `end`."""
    await to_thread.run_sync(jobs.ensure_found, backend, caller.project_id, job_id)
    return EventStream(feeds, caller.project_id, job_id, parse_id(last_event_id or after or "0.0"))


@router.get("/jobs/{job_id}/events")
def list_job_events(
    job_id: JobId,
    backend: BackendDep,
    caller: CallerDep,
    after: After = 0,
    limit: Annotated[int, Query(ge=1, le=MAX_EVENTS, description="Events of a page.")] = MAX_EVENTS,
) -> Events:
    """List the job's events, oldest first."""
    found = events.list_events(backend, caller.project_id, job_id, after=after, limit=limit + 1)
    shown = found[:limit]
    last_seq = shown[-1].seq if shown else after
    return Events.model_validate({"data": shown, "last_seq": last_seq, "has_more": len(found) > limit})


@router.get("/jobs/{job_id}/samples")
def list_job_samples(job_id: JobId, backend: BackendDep, caller: CallerDep) -> Samples:
    """List the sample prompts, answered by the reference and by the policy."""
    return Samples.model_validate({"data": events.list_samples(backend, caller.project_id, job_id)})


@router.get("/jobs/{job_id}/log", response_class=Response, responses=LOG)
def get_job_log(job_id: JobId, backend: BackendDep, caller: CallerDep, after: LogAfter = 0) -> Response:
    """Return what the job's trainings have printed, tracebacks included, without secrets and paths of the machine.

    A line is there seconds after it was printed. It needs the scope `write`.
    """
    found = logs.read_log(backend, caller.project_id, job_id, after=after)
    headers = {LOG_END: str(found.end_bytes), "Cache-Control": "no-store"}
    return Response(found.text, 200, headers, "text/plain; charset=utf-8")
