"""`/jobs/{id}/scores`: implicit rewards of a policy, or rewards of a reward model."""

from dataclasses import replace
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from api.access.callers import Caller
from api.deps import MAX_WAIT_SECONDS, NEEDS_KEY, BackendDep, CallerDep, IdempotencyKey, Wait, WaitersDep
from api.docs.openapi import problems
from api.http.idempotent import Created, answer_once_ended, creating
from api.http.problems import HttpError
from api.http.strict_route import StrictRoute
from api.live.waiting import HeldWaiters
from api.routes.jobs import JobId
from api.schemas.scores import ScoreRequest, Scores
from core.services.backend import Backend
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
async def request_scores(
    job_id: JobId,
    body: ScoreRequest,
    request: Request,
    backend: BackendDep,
    caller: CallerDep,
    waiters: WaitersDep,
    wait: Wait = 0,
    key: IdempotencyKey = None,
) -> Response:
    """Compute rewards of any responses, implicit ones of a policy or a reward model's. Not delayed by training."""

    def create(score_id: str | None) -> Created:
        rows = body.model_dump(exclude_none=True)
        view = scores.create(backend, caller.project_id, job_id, rows, score_id=score_id)
        headers = {"Location": f"/jobs/{job_id}/scores/{view.id}"}
        return Created(body=Scores.model_validate(view), status=202, headers=headers)

    async def end(created: Created) -> Created:
        assert isinstance(created.body, Scores)
        if not wait:
            return created
        try:
            scored = await _await(backend, caller, waiters, job_id, created.body.id, wait)
        except HttpError:  # too many wait with this key; the request is queued all the same
            return created
        return replace(created, body=scored)

    creation = creating(request, caller.project_id, key).with_lease(wait + MAX_WAIT_SECONDS)
    return await answer_once_ended(backend, creation, "score", create, end)


@router.get("/jobs/{job_id}/scores/{score_id}", responses=problems(404, 422, 503))
async def get_scores(
    job_id: JobId, score_id: ScoreId, backend: BackendDep, caller: CallerDep, waiters: WaitersDep, wait: Wait = 0
) -> Scores:
    """Return a request for scores, with the scores once they are computed."""
    return await _await(backend, caller, waiters, job_id, score_id, wait)


async def _await(
    backend: Backend, caller: Caller, waiters: HeldWaiters, job_id: str, score_id: str, seconds: float
) -> Scores:
    look = partial(scores.get, backend, caller.project_id, job_id, score_id)
    what = ("scores", caller.project_id, job_id, score_id)
    return Scores.model_validate(await waiters.until_ended(what, look, wait_seconds=seconds))
