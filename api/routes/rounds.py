"""`/rounds`: a policy answers, a judge judges, and the policy is trained on that, several times."""

from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from api.deps import DEFAULT_LIMIT, NEEDS_KEY, BackendDep, CallerDep, Cursor, IdempotencyKey, Limit
from api.docs.openapi import problems
from api.http.idempotent import Created, answer_once, creating
from api.http.strict_route import StrictRoute
from api.schemas.base import Page
from api.schemas.rounds import PolicyRounds, RoundsPreview
from api.steering import answer_change, steered
from api.threads import Lane, in_lane
from core.domain.judging.rounds import RoundsExtension, RoundsRequest
from core.services.rounds import previews, rounds

RoundsId = Annotated[str, Path(description="Id of rounds.", max_length=64)]
ACCEPTED = "Accepted; their job, generation or judgement follows."
STEERED = steered(PolicyRounds, ACCEPTED)
EXTENDED = steered(
    PolicyRounds,
    ACCEPTED,
    already="They have so many already.",
    failures=problems(400, 404, 409, 413, 415, 422, 503),
)

router = APIRouter(tags=["rounds"], route_class=StrictRoute, dependencies=NEEDS_KEY)


@router.post(
    "/rounds",
    status_code=201,
    response_model=PolicyRounds,
    response_description="Recorded; their stages are started one after the other. `Location` names them.",
    responses=problems(400, 409, 413, 415, 422, 503),
)
@in_lane(Lane.PREVIEWS)
def create_rounds(
    body: RoundsRequest, request: Request, backend: BackendDep, caller: CallerDep, key: IdempotencyKey = None
) -> Response:
    """Train in rounds: the policy answers, a judge judges, pairs are made, a job trains, and win rates tell what came.

    Each stage is an ordinary generation, judgement, dataset or job.
    """

    def create(rounds_id: str | None) -> Created:
        view = rounds.create(backend, caller.project_id, body, rounds_id=rounds_id)
        return Created(body=PolicyRounds.model_validate(view), headers={"Location": f"/rounds/{view.id}"})

    return answer_once(backend, creating(request, caller.project_id, key), "rounds", create)


@router.post("/rounds/preview", responses=problems(400, 413, 415, 422, 503))
@in_lane(Lane.PREVIEWS)
def preview_rounds(body: RoundsRequest, backend: BackendDep, caller: CallerDep) -> RoundsPreview:
    """Check rounds and show their stages, answers, pairs and judgements, without starting any."""
    return RoundsPreview.model_validate(previews.preview(backend, caller.project_id, body))


@router.get("/rounds", responses=problems(422, 503))
def list_rounds(
    backend: BackendDep, caller: CallerDep, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> Page[PolicyRounds]:
    """List the rounds, newest first."""
    page = rounds.list_page(backend, caller.project_id, limit=limit, cursor=cursor)
    return Page[PolicyRounds].model_validate(page)


@router.get("/rounds/{rounds_id}", responses=problems(404, 503))
def get_rounds(rounds_id: RoundsId, backend: BackendDep, caller: CallerDep) -> PolicyRounds:
    """Return rounds with their stages, win rates and drift."""
    return PolicyRounds.model_validate(rounds.get(backend, caller.project_id, rounds_id))


@router.post("/rounds/{rounds_id}/cancel", **STEERED)
def cancel_rounds(rounds_id: RoundsId, backend: BackendDep, caller: CallerDep) -> Response:
    """Cancel rounds, with what is under way; what they have made stays."""
    return answer_change(PolicyRounds, *rounds.cancel(backend, caller.project_id, rounds_id))


@router.post("/rounds/{rounds_id}/pause", **STEERED)
def pause_rounds(rounds_id: RoundsId, backend: BackendDep, caller: CallerDep) -> Response:
    """Pause rounds: a job stops at a checkpoint, a generation or judgement after its part, and nothing follows."""
    return answer_change(PolicyRounds, *rounds.pause(backend, caller.project_id, rounds_id))


@router.post("/rounds/{rounds_id}/resume", **STEERED)
def resume_rounds(rounds_id: RoundsId, backend: BackendDep, caller: CallerDep) -> Response:
    """Resume paused rounds; of failed ones the stage that failed is done again, by a new child."""
    return answer_change(PolicyRounds, *rounds.resume(backend, caller.project_id, rounds_id))


@router.post("/rounds/{rounds_id}/extend", **EXTENDED)
def extend_rounds(rounds_id: RoundsId, body: RoundsExtension, backend: BackendDep, caller: CallerDep) -> Response:
    """Allow more rounds; finished ones go on, those too that no longer improved."""
    return answer_change(PolicyRounds, *rounds.extend(backend, caller.project_id, rounds_id, body.num_rounds))


@router.delete("/rounds/{rounds_id}", status_code=204, responses=problems(404, 409, 503))
def delete_rounds(rounds_id: RoundsId, backend: BackendDep, caller: CallerDep) -> None:
    """Delete the record of rounds that have ended; their datasets, judgements and jobs stay."""
    rounds.delete(backend, caller.project_id, rounds_id)
