"""`/v1/fine_tuning/jobs`: the jobs of this service, as OpenAI's clients drive them."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from api.access.callers import Caller
from api.deps import MAX_LIMIT, NEEDS_KEY, BackendDep, CallerDep, IdempotencyKey
from api.http.idempotent import Created, creating
from api.http.problems import INVALID_REQUEST, HttpError
from api.http.strict_route import OPEN_QUERY, StrictRoute
from api.openai.intent import answer_intent
from api.openai.jobs import bounds_of_event, has_shown_policy, show_checkpoint, show_event, show_job
from api.openai.methods import ServedMethod
from api.openai.objects import Checkpoint, Event, Job, ListPage
from api.openai.requests import (
    FineTuningRequest,
    job_fields,
    job_request,
    multiplier_of,
    renamed,
    served_method,
    with_learning_rate,
)
from api.openai.routes.files import until_checked
from core.domain.dataset_rows import DatasetKind
from core.domain.errors import Conflict, FieldError, InvalidRequest
from core.domain.jobs.job_queries import JobFilter
from core.domain.jobs.job_spec import JobRequest
from core.domain.jobs.methods import method_of
from core.domain.jobs.spec_forms import shown_form
from core.services.backend import Backend
from core.services.cursors import encode_cursor
from core.services.curves import activity
from core.services.datasets import datasets, template_fit
from core.services.jobs import checkpoint_policies, jobs, steering
from core.services.views import JobChange, JobView

METADATA_PREFIX = "metadata["
_METADATA_NAME = re.compile(r"metadata\[(?:(?!\]\[).)+\]", re.DOTALL)
JobId = Annotated[str, Path(description="Id of a job.", max_length=64)]
After = Annotated[str | None, Query(max_length=128, description="The last id of the page before.")]
PageLimit = Annotated[int, Query(ge=1, le=10_000, description=f"Items of a page; {MAX_LIMIT} at most are answered.")]

router = APIRouter(route_class=StrictRoute, dependencies=NEEDS_KEY)


class FileNotProcessed(Conflict):
    code = "file-not-processed"
    title = "The file is still being checked"


@router.post("/v1/fine_tuning/jobs", response_model=Job)
async def create_job(
    body: FineTuningRequest,
    request: Request,
    backend: BackendDep,
    caller: CallerDep,
    key: IdempotencyKey = None,
) -> Response:
    """Queue a job that starts from `model`. What cannot be honoured is refused, by its name in the body."""
    fields = job_fields(body)
    await _require_processed(backend, caller.project_id, body)

    def create(job_id: str | None) -> Created:
        view = _submit(backend, caller.project_id, _Asked(served_method(body), fields, multiplier_of(body)), job_id)
        return Created(body=show_job(caller.project_id, view), status=200)

    asked = creating(request, caller.project_id, key)
    work = partial(answer_intent, backend, request, caller, asked, "job", create)
    return await to_thread.run_sync(work)


@router.get("/v1/fine_tuning/jobs", openapi_extra={OPEN_QUERY: [METADATA_PREFIX]})
def list_jobs(
    request: Request,
    backend: BackendDep,
    caller: CallerDep,
    limit: PageLimit = 20,
    after: After = None,
    metadata: Annotated[str | None, Query(max_length=8, description="`null`: all jobs.")] = None,
) -> ListPage[Job]:
    """The jobs, newest first. `metadata[<key>]=<value>` keeps those with that metadata."""
    if metadata not in (None, "null", ""):
        raise _bad_query("metadata", "is given as metadata[<key>]=<value>, or as `null`")
    for name in request.query_params:
        if name.startswith(METADATA_PREFIX) and not _METADATA_NAME.fullmatch(name):
            raise _bad_query("metadata", "is given as metadata[<key>]=<value>, without anything inside the key")
    wanted = {
        name.removeprefix(METADATA_PREFIX).removesuffix("]"): value
        for name, value in request.query_params.items()
        if name.startswith(METADATA_PREFIX)
    }
    cursor = encode_cursor(after) if after else None
    page = jobs.list_page(
        backend, caller.project_id, JobFilter(metadata=wanted), limit=min(limit, MAX_LIMIT), cursor=cursor
    )
    shown = [show_job(caller.project_id, view) for view in page.data]
    return ListPage[Job].of(shown, has_more=page.next_cursor is not None)


@router.get("/v1/fine_tuning/jobs/{job_id}")
def get_job(job_id: JobId, backend: BackendDep, caller: CallerDep) -> Job:
    """Return one fine-tuning job."""
    return show_job(caller.project_id, jobs.get(backend, caller.project_id, job_id))


@router.post("/v1/fine_tuning/jobs/{job_id}/cancel")
def cancel_job(job_id: JobId, backend: BackendDep, caller: CallerDep) -> Job:
    """End the job for good."""
    return _steered(backend, caller, job_id, steering.cancel)


@router.post("/v1/fine_tuning/jobs/{job_id}/pause")
def pause_job(job_id: JobId, backend: BackendDep, caller: CallerDep) -> Job:
    """Stop the job behind a checkpoint."""
    return _steered(backend, caller, job_id, steering.pause)


@router.post("/v1/fine_tuning/jobs/{job_id}/resume")
def resume_job(job_id: JobId, backend: BackendDep, caller: CallerDep) -> Job:
    """Let a paused job go on."""
    return _steered(backend, caller, job_id, steering.resume)


@router.get("/v1/fine_tuning/jobs/{job_id}/events")
def list_events(
    job_id: JobId, backend: BackendDep, caller: CallerDep, limit: PageLimit = 20, after: After = None
) -> ListPage[Event]:
    """What happened, and the points of the curves, newest first."""
    before = bounds_of_event(job_id, after) if after else None
    if after and before is None:
        raise _bad_query("after", "is not the id of an event of this job")
    found = activity.list_newest(backend, caller.project_id, job_id, before=before, limit=min(limit, MAX_LIMIT))
    shown = [event for entry in found.entries for event in show_event(caller.project_id, found.job, entry)]
    return ListPage[Event].of(shown, has_more=found.has_more)


@router.get("/v1/fine_tuning/jobs/{job_id}/checkpoints")
def list_checkpoints(
    job_id: JobId, backend: BackendDep, caller: CallerDep, limit: PageLimit = 10, after: After = None
) -> ListPage[Checkpoint]:
    """The checkpoints whose policy is kept, the furthest along first; each can be trained from, by its name."""
    job = jobs.get(backend, caller.project_id, job_id)
    views = checkpoint_policies.list_checkpoints(backend, caller.project_id, job_id)
    kept = [show_checkpoint(caller.project_id, job, view) for view in views if has_shown_policy(job, view)]
    ids = [checkpoint.id for checkpoint in kept]
    if after and after not in ids:
        raise _bad_query("after", "is not the id of a checkpoint that this job keeps")
    start = ids.index(after) + 1 if after else 0
    return ListPage[Checkpoint].of(kept[start : start + limit], has_more=len(kept) > start + limit)


async def _require_processed(backend: Backend, project_id: str, body: FineTuningRequest) -> None:
    """Wait for the check of the files, as scripts start a job once the upload is answered.

    Raises:
        FileNotProcessed: the check goes on for long.
        InvalidRequest: no method is named, which means supervised, for a file of preferences.
    """
    for file_id in filter(None, (body.training_file, body.validation_file)):
        try:
            view = await until_checked(backend, project_id, file_id)
        except datasets.DatasetNotFound:
            continue  # told with all that is wrong
        if view.status == "processing":
            raise FileNotProcessed(f"{file_id} is still being checked; try again when its status is processed.")
        if body.method is None and view.kind == DatasetKind.PREFERENCE:
            detail = (
                f"is not named, which OpenAI takes for supervised, and {file_id} holds preference pairs: send "
                '{"type": "dpo"}, or {"type": "supervised"} to learn from the chosen responses alone'
            )
            raise InvalidRequest("The job cannot be accepted.", errors=[FieldError("/method", detail)])


@dataclass(frozen=True)
class _Asked:
    """A job as OpenAI's body asks for it."""

    served: ServedMethod
    fields: dict[str, Any]
    multiplier: float | None


def _submit(backend: Backend, project_id: str, asked: _Asked, job_id: str | None) -> JobView:
    served, fields = asked.served, asked.fields
    try:
        if asked.multiplier is not None:
            spec = shown_form(jobs.preview(backend, project_id, job_request(served, fields)).spec)
            preset = spec[method_of(spec).last.value]["learning_rate"]
            fields = with_learning_rate(served, fields, preset * asked.multiplier)
        request = job_request(served, fields)
        _require_written_tools(backend, project_id, request)
        return jobs.submit(backend, project_id, request, job_id=job_id)
    except InvalidRequest as error:
        raise renamed(served, error.errors) if error.errors else error from error


def _require_written_tools(backend: Backend, project_id: str, request: JobRequest) -> None:
    """Raise InvalidRequest where the base model's template leaves out tools of a file: they would be lost."""
    sft_id = None if request.sft == "skip" else request.sft.dataset_id
    named = {
        "/dataset_id": request.dataset_id,
        "/validation_dataset_id": request.validation_dataset_id,
        "/sft/dataset_id": sft_id,
    }
    errors = []
    for pointer, dataset_id in named.items():
        if dataset_id and datasets.is_ready(backend, project_id, dataset_id):
            fault = template_fit.tools_fault(backend, project_id, request.base_model, dataset_id)
            errors += [FieldError(pointer, fault)] if fault else []
    if errors:
        raise InvalidRequest("The job cannot be accepted.", errors=errors)


def _steered(backend: Backend, caller: Caller, job_id: str, steer: Callable[[Backend, str, str], JobChange]) -> Job:
    return show_job(caller.project_id, steer(backend, caller.project_id, job_id).job)


def _bad_query(name: str, why: str) -> HttpError:
    return HttpError(INVALID_REQUEST, f"{name} {why}", errors=[FieldError(f"/{name}", why)])
