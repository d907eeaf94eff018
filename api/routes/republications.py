"""`/jobs/{id}/republish`: a policy that an earlier version merged in bf16, merged again in float32."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from api.deps import NEEDS_KEY, BackendDep, CallerDep, IdempotencyKey, Wait, WaitersDep
from api.docs.openapi import problems
from api.http.idempotent import Created, answer_once, creating
from api.http.strict_route import StrictRoute
from api.routes.jobs import JobId
from api.schemas.republications import Republication
from core.services.requests import republications

router = APIRouter(tags=["artifact"], route_class=StrictRoute, dependencies=NEEDS_KEY)

RepublicationId = Annotated[str, Path(description="Id of a republication of the job.", max_length=64)]


@router.post(
    "/jobs/{job_id}/republish",
    status_code=202,
    response_model=Republication,
    response_description="Accepted, or on its way already. `Location` names it.",
    responses=problems(404, 409, 422, 503),
)
def republish_job(
    job_id: JobId, request: Request, backend: BackendDep, caller: CallerDep, key: IdempotencyKey = None
) -> Response:
    """Merge adapter and base model again, in float32, verify that, and publish it in the old artifact's place.

    For jobs whose artifact says `merged_in_bf16`; the old artifact stays until the new one is committed.
    """

    def create(request_id: str | None) -> Created:
        view = republications.create(backend, caller.project_id, job_id, request_id=request_id)
        location = f"/jobs/{job_id}/republish/{view.id}"
        return Created(body=Republication.model_validate(view), status=202, headers={"Location": location})

    return answer_once(backend, creating(request, caller.project_id, key), "republish", create)


@router.get("/jobs/{job_id}/republish/{republication_id}", responses=problems(404, 422, 503))
async def get_republication(
    job_id: JobId,
    republication_id: RepublicationId,
    backend: BackendDep,
    caller: CallerDep,
    waiters: WaitersDep,
    wait: Wait = 0,
) -> Republication:
    """One republication, and what has changed once it has succeeded."""
    look = partial(republications.get, backend, caller.project_id, job_id, republication_id)
    what = ("republication", caller.project_id, job_id, republication_id)
    return Republication.model_validate(await waiters.until_ended(what, look, wait_seconds=wait))
