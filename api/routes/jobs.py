"""`/jobs`: submit, read, control, retry, delete."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from pydantic import StringConstraints
from starlette.datastructures import QueryParams
from starlette.responses import Response

from api.deps import DEFAULT_LIMIT, NEEDS_KEY, BackendDep, CallerDep, Cursor, IdempotencyKey, Limit
from api.docs.openapi import problems
from api.http.idempotent import Created, answer_once, creating
from api.http.problems import INVALID_REQUEST, HttpError
from api.http.strict_route import OPEN_QUERY, StrictRoute
from api.schemas.base import Page
from api.schemas.datasets import DatasetWarning, TokenStatistics
from api.schemas.estimates import JobEstimate
from api.schemas.jobs import Job, JobPatch, JobPreview
from api.steering import answer_change, steered
from api.threads import Lane, in_lane
from core.domain.errors import FieldError
from core.domain.jobs.job_queries import JobFilter, JobSort
from core.domain.jobs.job_spec import JobRequest
from core.domain.jobs.job_state import JobStatus
from core.domain.jobs.spec_forms import shown_form
from core.services.datasets import previews
from core.services.estimates import estimates
from core.services.estimates.sizes import seen_by
from core.services.jobs import jobs, repeats, steering
from core.services.views import JobView

METADATA_PREFIXES = ("metadata.", "metadata[")
HAS_METADATA = (
    "Only jobs with this metadata, as `<key>:<value>`; repeated, all of them. `metadata.<key>=<value>` and "
    "`metadata[<key>]=<value>` are taken as well, for keys with a colon too."
)
MetadataParam = Annotated[
    list[Annotated[str, StringConstraints(min_length=2, max_length=577, pattern=r"^[^:]+:")]],
    Query(max_length=32, description=HAS_METADATA),
]
SEARCHED = "Only jobs that have this text in name, id, tags or notes; upper and lower case are one."
USES = "Only jobs that train on this dataset, learn from its demonstrations or hold it out."
SORTED = (
    "`-` for the largest first; jobs without the value come last. `loss`, `accuracy` and `margin` are held-out results."
)
JobId = Annotated[str, Path(description="Id of a job.", max_length=64)]

router = APIRouter(tags=["jobs"], route_class=StrictRoute, dependencies=NEEDS_KEY)


@router.post(
    "/jobs",
    status_code=201,
    response_model=Job,
    response_description="Queued. `Location` names the job.",
    responses=problems(400, 409, 413, 415, 422, 503, 507),
)
def submit_job(
    body: JobRequest, request: Request, backend: BackendDep, caller: CallerDep, key: IdempotencyKey = None
) -> Response:
    """Queue a training job: SFT on the chosen responses, then DPO; or, as `method` says, SFT alone.

    `base_model` and `dataset_id` are enough.
    """
    return answer_once(
        backend,
        creating(request, caller.project_id, key),
        "job",
        lambda job_id: _created(jobs.submit(backend, caller.project_id, body, job_id=job_id)),
    )


@router.post("/jobs/preview", responses=problems(400, 413, 415, 422, 503))
@in_lane(Lane.PREVIEWS)
def preview_job(body: JobRequest, backend: BackendDep, caller: CallerDep) -> JobPreview:
    """Check a job and show its resolved numbers, what it would set aside and what it would take, without queuing it."""
    previewed = jobs.preview(backend, caller.project_id, body)
    spec = previewed.spec
    found = previews.find_token_statistics(backend, caller.project_id, spec.dataset_name, seen_by(spec))
    estimate = estimates.of_spec(backend, caller.project_id, spec, previewed.base_model_name, found)
    rows = TokenStatistics.model_validate(found) if found else None
    warnings = [DatasetWarning.model_validate(warning) for warning in previewed.warnings]
    return JobPreview(
        spec=shown_form(spec),
        rows=rows,
        warnings=warnings,
        estimate=JobEstimate.model_validate(estimate),
    )


@router.get("/jobs", responses=problems(422, 503), openapi_extra={OPEN_QUERY: METADATA_PREFIXES})
def list_jobs(
    request: Request,
    backend: BackendDep,
    caller: CallerDep,
    status: Annotated[JobStatus | None, Query(description="Only jobs of this status.")] = None,
    search: Annotated[str | None, Query(min_length=1, max_length=200, description=SEARCHED)] = None,
    tag: Annotated[str | None, Query(min_length=1, max_length=100, description="Only jobs with this tag.")] = None,
    variant: Annotated[str | None, Query(max_length=255, description="Only jobs of this variant.")] = None,
    base_model: Annotated[str | None, Query(max_length=255, description="Only jobs from this model.")] = None,
    dataset_id: Annotated[str | None, Query(max_length=255, description=USES)] = None,
    metadata: MetadataParam = [],  # noqa: B006 - FastAPI copies it
    sort: Annotated[JobSort, Query(description=SORTED)] = "-created",
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Page[Job]:
    """List the jobs, newest first or as `sort` says."""
    where = JobFilter(
        status=status, metadata=_wanted(metadata, request.query_params), variant=variant, base_model=base_model,
        dataset_id=dataset_id, tag=tag, search=search, sort=sort,
    )  # fmt: skip
    page = jobs.list_page(backend, caller.project_id, where, limit=limit, cursor=cursor)
    return Page[Job].model_validate(page)


@router.get("/jobs/{job_id}", responses=problems(404, 503))
def get_job(job_id: JobId, backend: BackendDep, caller: CallerDep) -> Job:
    """Return one job: its state, progress and settings."""
    return Job.model_validate(jobs.get(backend, caller.project_id, job_id))


@router.patch("/jobs/{job_id}", responses=problems(400, 404, 409, 413, 415, 422, 503))
def patch_job(job_id: JobId, body: JobPatch, backend: BackendDep, caller: CallerDep) -> Job:
    """Change name, metadata, priority or nodes."""
    return Job.model_validate(jobs.patch(backend, caller.project_id, job_id, body.changes()))


@router.delete("/jobs/{job_id}", status_code=204, responses=problems(404, 409, 503))
def delete_job(job_id: JobId, backend: BackendDep, caller: CallerDep) -> None:
    """Delete a finished job, its checkpoints and its artifact."""
    jobs.delete(backend, caller.project_id, job_id)


STEERED = steered(Job, "Accepted; takes effect at the next step boundary.")


@router.post("/jobs/{job_id}/cancel", **STEERED)
def cancel_job(
    job_id: JobId,
    backend: BackendDep,
    caller: CallerDep,
    save: Annotated[bool, Query(description="Publish the current policy.")] = False,
) -> Response:
    """Cancel the job for good, at its next step."""
    return answer_change(Job, *steering.cancel(backend, caller.project_id, job_id, save=save))


@router.post("/jobs/{job_id}/pause", **STEERED)
def pause_job(job_id: JobId, backend: BackendDep, caller: CallerDep) -> Response:
    """Pause the job at a checkpoint and free its device."""
    return answer_change(Job, *steering.pause(backend, caller.project_id, job_id))


@router.post("/jobs/{job_id}/resume", **STEERED)
def resume_job(job_id: JobId, backend: BackendDep, caller: CallerDep) -> Response:
    """Resume a paused job from its checkpoint."""
    return answer_change(Job, *steering.resume(backend, caller.project_id, job_id))


@router.post(
    "/jobs/{job_id}/retry",
    status_code=201,
    response_model=Job,
    response_description="A new job. `Location` names it.",
    responses=problems(404, 409, 413, 422, 503, 507),
)
def retry_job(
    job_id: JobId, request: Request, backend: BackendDep, caller: CallerDep, key: IdempotencyKey = None
) -> Response:
    """Create a job that continues from the newest intact checkpoint of a failed or cancelled one."""
    return answer_once(
        backend,
        creating(request, caller.project_id, key),
        "job",
        lambda new_id: _created(repeats.retry(backend, caller.project_id, job_id, new_job_id=new_id)),
    )


def _wanted(pairs: list[str], query: QueryParams) -> dict[str, str]:
    """Return the metadata that jobs are to have, however it was written. Raises HttpError for a key given twice."""
    found = [(key, value) for key, _, value in (pair.partition(":") for pair in pairs)]
    for name, value in query.items():
        if name.startswith(METADATA_PREFIXES):
            key = name[len(METADATA_PREFIXES[0]) :]
            found.append((key.removesuffix("]") if name.startswith(METADATA_PREFIXES[1]) else key, value))
    wanted = dict(found)
    if len(wanted) < len(found):
        error = FieldError("/metadata", "names a key more than once; a job has one value of each")
        raise HttpError(INVALID_REQUEST, f"{error.pointer}: {error.detail}", errors=[error])
    return wanted


def _created(view: JobView) -> Created:
    return Created(body=Job.model_validate(view), headers={"Location": f"/jobs/{view.id}"})
