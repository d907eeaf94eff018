"""`/generations`: what models answer to prompts, as a dataset of responses."""

from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from api.deps import DEFAULT_LIMIT, NEEDS_KEY, BackendDep, CallerDep, Cursor, IdempotencyKey, Limit
from api.docs.openapi import problems
from api.http.idempotent import Created, answer_once, creating
from api.http.strict_route import StrictRoute
from api.routes.judgements import OfDataset, OfJob
from api.schemas.base import Page
from api.schemas.generations import Generation
from api.steering import answer_change, steered
from api.threads import Lane, in_lane
from core.domain.judging.generations import GenerationRequest
from core.services.generations import generations

GenerationId = Annotated[str, Path(description="Id of a generation.", max_length=64)]

router = APIRouter(tags=["generations"], route_class=StrictRoute, dependencies=NEEDS_KEY)


@router.post(
    "/generations",
    status_code=201,
    response_model=Generation,
    response_description="Queued, with its prompts. `Location` names it.",
    responses=problems(400, 409, 413, 415, 422, 503),
)
@in_lane(Lane.STORE)
def create_generation(
    body: GenerationRequest, request: Request, backend: BackendDep, caller: CallerDep, key: IdempotencyKey = None
) -> Response:
    """Have models answer prompts. The same request gives the same answers, whatever is interrupted meanwhile."""

    def create(generation_id: str | None) -> Created:
        view = generations.create(backend, caller.project_id, body, generation_id=generation_id)
        return Created(body=Generation.model_validate(view), headers={"Location": f"/generations/{view.id}"})

    return answer_once(backend, creating(request, caller.project_id, key), "gen", create)


@router.get("/generations", responses=problems(422, 503))
def list_generations(
    backend: BackendDep,
    caller: CallerDep,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    *,
    dataset_id: OfDataset = None,
    job_id: OfJob = None,
) -> Page[Generation]:
    """List the generations, newest first."""
    page = generations.list_page(
        backend, caller.project_id, limit=limit, cursor=cursor, dataset_id=dataset_id, job_id=job_id
    )
    return Page[Generation].model_validate(page)


@router.get("/generations/{generation_id}", responses=problems(404, 503))
def get_generation(generation_id: GenerationId, backend: BackendDep, caller: CallerDep) -> Generation:
    """Return one generation with its progress."""
    return Generation.model_validate(generations.get(backend, caller.project_id, generation_id))


@router.post(
    "/generations/{generation_id}/cancel",
    **steered(Generation, "Cancelled; its worker stops within seconds.", already="Already cancelled."),
)
def cancel_generation(generation_id: GenerationId, backend: BackendDep, caller: CallerDep) -> Response:
    """Cancel a generation; what it has answered so far is dropped."""
    return answer_change(Generation, *generations.cancel(backend, caller.project_id, generation_id))


@router.delete("/generations/{generation_id}", status_code=204, responses=problems(404, 409, 503))
def delete_generation(generation_id: GenerationId, backend: BackendDep, caller: CallerDep) -> None:
    """Delete the record of a generation that has ended; its dataset stays."""
    generations.delete(backend, caller.project_id, generation_id)
