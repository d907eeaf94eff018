"""Operations that steer: 202 where something has changed, 200 where it was so already."""

from typing import Any

from starlette.responses import Response

from api.docs.openapi import Responses, problems
from api.schemas.base import Answer

STEER_PROBLEMS = problems(404, 409, 422, 503)


def steered(
    model: type[Answer], accepted: str, *, already: str = "Already in that state.", failures: Responses = STEER_PROBLEMS
) -> dict[str, Any]:
    """Return the arguments of a route that say what it answers."""
    responses = {202: {"model": model, "description": accepted}, **failures}
    return {"response_model": model, "response_description": already, "responses": responses}


def answer_change(model: type[Answer], view: object, is_changed: bool) -> Response:
    """Answer what a service returned: the view, and whether it has changed."""
    body = model.model_validate(view).model_dump_json()
    return Response(body, 202 if is_changed else 200, media_type="application/json")
