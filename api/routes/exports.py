"""`/jobs/{id}/exports`: the policy in another format."""

from dataclasses import asdict
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from api.deps import NEEDS_KEY, BackendDep, CallerDep, IdempotencyKey, Wait, WaitersDep
from api.docs.openapi import problems
from api.http.idempotent import Created, answer_once, creating
from api.http.strict_route import StrictRoute
from api.routes.artifacts import file_url
from api.routes.jobs import JobId
from api.schemas.exports import Export, ExportRequest, Exports
from core.services.requests import exports
from core.services.requests.exports import ExportView

router = APIRouter(tags=["artifact"], route_class=StrictRoute, dependencies=NEEDS_KEY)

ExportId = Annotated[str, Path(description="Id of an export of the job.", max_length=64)]


@router.post(
    "/jobs/{job_id}/exports",
    status_code=202,
    response_model=Export,
    response_description="Accepted, or on its way or made already. `Location` names it.",
    responses=problems(400, 404, 409, 413, 415, 422, 503),
)
def request_export(
    job_id: JobId,
    body: ExportRequest,
    request: Request,
    backend: BackendDep,
    caller: CallerDep,
    key: IdempotencyKey = None,
) -> Response:
    """Convert the policy to another format; the file is then listed in the artifact."""

    def create(export_id: str | None) -> Created:
        view = exports.create(backend, caller.project_id, job_id, body.format, export_id=export_id)
        return Created(body=_shown(view), status=202, headers={"Location": f"/jobs/{job_id}/exports/{view.id}"})

    return answer_once(backend, creating(request, caller.project_id, key), "export", create)


@router.get("/jobs/{job_id}/exports", responses=problems(404, 503))
def list_job_exports(job_id: JobId, backend: BackendDep, caller: CallerDep) -> Exports:
    """List the requested exports, newest first."""
    return Exports(data=[_shown(view) for view in exports.list_exports(backend, caller.project_id, job_id)])


@router.get("/jobs/{job_id}/exports/{export_id}", responses=problems(404, 422, 503))
async def get_export(
    job_id: JobId, export_id: ExportId, backend: BackendDep, caller: CallerDep, waiters: WaitersDep, wait: Wait = 0
) -> Export:
    """Return one export, and the location of its file once it has succeeded."""
    look = partial(exports.get, backend, caller.project_id, job_id, export_id)
    what = ("export", caller.project_id, job_id, export_id)
    return _shown(await waiters.until_ended(what, look, wait_seconds=wait))


def _shown(view: ExportView) -> Export:
    url = None if view.path is None else file_url(view.job_id, view.path)
    return Export.model_validate(asdict(view) | {"url": url})
