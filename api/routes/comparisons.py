"""Comparisons of the members of a sweep, or of any jobs: as JSON, as text, and as a report in one HTML file."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from api.deps import NEEDS_KEY, BackendDep, CallerDep
from api.docs.openapi import Responses, problems
from api.downloads import attachment
from api.http.strict_route import StrictRoute
from api.routes.jobs import JobId
from api.routes.sweeps import SweepId
from api.schemas.comparisons import Comparison
from api.threads import Lane, in_lane
from core.services.comparisons import comparisons, reports

PROBLEMS = problems(404, 422, 503)
_TEXT, _HTML = "text/plain", "text/html"
_HTML_POLICY = "default-src 'none'; style-src 'unsafe-inline'; sandbox"

Others = Annotated[
    str, Query(max_length=5000, description="Ids of the jobs to compare it with, at most 63, with commas between.")
]
Against = Annotated[
    str | None,
    Query(max_length=64, description="Member that the others are compared with; not given: the most accurate."),
]

router = APIRouter(tags=["comparisons"], route_class=StrictRoute, dependencies=NEEDS_KEY)


def _as(media_type: str, what: str) -> Responses:
    return {200: {"description": what, "content": {media_type: {"schema": {"type": "string"}}}}, **PROBLEMS}


@router.get("/sweeps/{sweep_id}/comparison", responses=PROBLEMS)
@in_lane(Lane.STORE)
def compare_sweep(sweep_id: SweepId, backend: BackendDep, caller: CallerDep, against: Against = None) -> Comparison:
    """Compare the members of a sweep: accuracy against divergence, the setting to take, and how sure that is."""
    return Comparison.model_validate(comparisons.of_sweep(backend, caller.project_id, sweep_id, against=against))


@router.get(
    "/sweeps/{sweep_id}/comparison.txt", response_class=Response, responses=_as(_TEXT, "The tables, in plain text.")
)
@in_lane(Lane.STORE)
def compare_sweep_as_text(
    sweep_id: SweepId, backend: BackendDep, caller: CallerDep, against: Against = None
) -> Response:
    """Compare the members of a sweep, in plain text."""
    found = comparisons.of_sweep(backend, caller.project_id, sweep_id, against=against)
    return Response(reports.as_text(found), media_type=_TEXT)


@router.get(
    "/sweeps/{sweep_id}/comparison.html", response_class=Response, responses=_as(_HTML, "A report in one file.")
)
@in_lane(Lane.STORE)
def compare_sweep_as_html(
    sweep_id: SweepId, backend: BackendDep, caller: CallerDep, against: Against = None
) -> Response:
    """Download the comparison of a sweep as one HTML file that needs no server."""
    found = comparisons.of_sweep(backend, caller.project_id, sweep_id, against=against)
    return _html(reports.as_html(backend, caller.project_id, found), f"comparison-{sweep_id}.html")


@router.get("/jobs/{job_id}/comparison", responses=PROBLEMS)
@in_lane(Lane.STORE)
def compare_jobs(job_id: JobId, backend: BackendDep, caller: CallerDep, others: Others = "") -> Comparison:
    """Compare a job with others, whatever made them."""
    found = comparisons.of_jobs(backend, caller.project_id, [job_id, *_ids(others)], against=job_id)
    return Comparison.model_validate(found)


@router.get(
    "/jobs/{job_id}/comparison.txt", response_class=Response, responses=_as(_TEXT, "The tables, in plain text.")
)
@in_lane(Lane.STORE)
def compare_jobs_as_text(job_id: JobId, backend: BackendDep, caller: CallerDep, others: Others = "") -> Response:
    """Compare a job with others, in plain text."""
    found = comparisons.of_jobs(backend, caller.project_id, [job_id, *_ids(others)], against=job_id)
    return Response(reports.as_text(found), media_type=_TEXT)


@router.get("/jobs/{job_id}/comparison.html", response_class=Response, responses=_as(_HTML, "A report in one file."))
@in_lane(Lane.STORE)
def compare_jobs_as_html(job_id: JobId, backend: BackendDep, caller: CallerDep, others: Others = "") -> Response:
    """Download the comparison of a job with others as one HTML file that needs no server."""
    found = comparisons.of_jobs(backend, caller.project_id, [job_id, *_ids(others)], against=job_id)
    return _html(reports.as_html(backend, caller.project_id, found), f"comparison-{job_id}.html")


def _ids(others: str) -> list[str]:
    return [part.strip() for part in others.split(",") if part.strip()]


def _html(text: str, name: str) -> Response:
    headers = {"Content-Disposition": attachment(name), "Content-Security-Policy": _HTML_POLICY}
    return Response(text, media_type=_HTML, headers=headers)
