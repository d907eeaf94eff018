"""`/feedback`: what people think of served answers, the answers kept for it, and the datasets that it becomes."""

from functools import partial
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from api.deps import DEFAULT_LIMIT, NEEDS_KEY, BackendDep, CallerDep, Cursor, IdempotencyKey, Limit
from api.docs.openapi import problems
from api.http.idempotent import Created, answer_once, creating
from api.http.strict_route import StrictRoute
from api.schemas.base import Page
from api.schemas.datasets import Dataset
from api.schemas.feedback import Feedback, NewFeedback, NewFeedbackDataset, ServedAnswer
from core.domain.dataset_rows import DatasetKind
from core.services.feedback import answers, cutting, giving

AnswerId = Annotated[str, Path(description="Id of a served answer.", max_length=64)]

router = APIRouter(tags=["feedback"], route_class=StrictRoute, dependencies=NEEDS_KEY)


@router.post(
    "/feedback",
    status_code=201,
    response_model=Feedback,
    response_description="Recorded, in place of what was said of the same before.",
    responses=problems(400, 404, 409, 413, 415, 422, 503),
)
def give_feedback(
    body: NewFeedback, request: Request, backend: BackendDep, caller: CallerDep, key: IdempotencyKey = None
) -> Response:
    """Say what somebody thinks of a served answer: a thumb, an edit, or that it is better than another one."""
    given = giving.Given(
        answer_id=body.answer_id,
        giver=f"{body.giver}@{caller.name}"[:255] if body.giver else caller.name,
        is_good=None if body.thumb is None else body.thumb == "up",
        edited=body.edit,
        worse_id=body.better_than,
        comment=body.comment,
    )

    def create(feedback_id: str | None) -> Created:
        found = giving.give(backend, caller.project_id, given, feedback_id=feedback_id)
        return Created(body=Feedback.model_validate(found))

    return answer_once(backend, creating(request, caller.project_id, key), "feedback", create)


@router.get("/feedback/answers", responses=problems(422, 503))
def list_served_answers(
    backend: BackendDep, caller: CallerDep, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> Page[ServedAnswer]:
    """List the answers that are kept, with what people think of them, newest first."""
    page = answers.list_page(
        backend, caller.project_id, keep_days=backend.settings.feedback_days, limit=limit, cursor=cursor
    )
    return Page[ServedAnswer].model_validate(page)


@router.delete("/feedback/answers", status_code=204, responses=problems(503))
def delete_served_answers(backend: BackendDep, caller: CallerDep) -> None:
    """Delete all answers of the project with all feedback; datasets that were cut from it stay."""
    answers.delete_all(backend, caller.project_id)


@router.delete("/feedback/answers/{answer_id}", status_code=204, responses=problems(404, 503))
def delete_served_answer(answer_id: AnswerId, backend: BackendDep, caller: CallerDep) -> None:
    """Delete an answer with the feedback on it; datasets that were cut from it stay."""
    answers.delete(backend, caller.project_id, answer_id)


@router.post(
    "/feedback/dataset",
    status_code=201,
    response_model=Dataset,
    response_description="A new version, of all feedback so far. `Location` names it.",
    responses={
        200: {"model": Dataset, "description": "The feedback is that of the newest version."},
        **problems(400, 409, 413, 415, 422, 503, 507),
    },
)
async def cut_feedback_dataset(
    body: NewFeedbackDataset,
    request: Request,
    backend: BackendDep,
    caller: CallerDep,
    key: IdempotencyKey = None,
) -> Response:
    """Make the feedback so far a version of the project's dataset of pairs, or of thumbs, which a job can take."""

    def create(dataset_id: str | None) -> Created:
        view, is_new = cutting.cut(backend, caller.project_id, DatasetKind(body.kind), dataset_id=dataset_id)
        headers = {"Location": f"/datasets/{view.id}"}
        return Created(body=Dataset.model_validate(view), status=201 if is_new else 200, headers=headers)

    asked = creating(request, caller.project_id, key).with_lease(backend.settings.check_timeout_seconds)
    limiter = request.app.state.upload_desk.check_limiter
    return await to_thread.run_sync(partial(answer_once, backend, asked, "ds", create), limiter=limiter)
