"""`/jobs/{id}/scores`: the reward model hidden in a policy."""

from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from api.deps import MAX_WAIT_SECONDS, NEEDS_KEY, BackendDep, CallerDep, IdempotencyKey, Wait
from api.docs.openapi import problems
from api.http.idempotent import Created, answer_once, creating
from api.http.strict_route import StrictRoute
from api.routes.jobs import JobId
from api.schemas.scores import ScoreRequest, Scores
from core.services.requests import scores

router = APIRouter(tags=["artifact"], route_class=StrictRoute, dependencies=NEEDS_KEY)

ScoreId = Annotated[str, Path(description="Id of a request for scores.", max_length=64)]


@router.post(
    "/jobs/{job_id}/scores",
    status_code=202,
    response_model=Scores,
    response_description="Accepted. `Location` names the request.",
    responses=problems(400, 404, 409, 413, 415, 422, 503),
)
def request_scores(
    job_id: JobId,
    body: ScoreRequest,
    request: Request,
    backend: BackendDep,
    caller: CallerDep,
    wait: Wait = 0,
    key: IdempotencyKey = None,
) -> Response:
    """Implicit rewards of any responses, under what the job trained. They do not wait behind training."""

    def create(score_id: str | None) -> Created:
        rows = body.model_dump(exclude_none=True)
        view = scores.create(backend, caller.project_id, job_id, rows, score_id=score_id)
        if wait:
            view = scores.get(backend, caller.project_id, job_id, view.id, wait_seconds=wait)
        headers = {"Location": f"/jobs/{job_id}/scores/{view.id}"}
        return Created(body=Scores.model_validate(view), status=202, headers=headers)

    creation = creating(request, caller.project_id, key).with_lease(wait + MAX_WAIT_SECONDS)
    return answer_once(backend, creation, "score", create)


@router.get("/jobs/{job_id}/scores/{score_id}", responses=problems(404, 422, 503))
def get_scores(job_id: JobId, score_id: ScoreId, backend: BackendDep, caller: CallerDep, wait: Wait = 0) -> Scores:
    """A request for scores, and the scores once they are there."""
    return Scores.model_validate(scores.get(backend, caller.project_id, job_id, score_id, wait_seconds=wait))
