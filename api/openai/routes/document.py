"""`/v1/openapi.json`, and the routers that it describes."""

from typing import Any

from fastapi import APIRouter, FastAPI, Request
from starlette.responses import JSONResponse, Response

from api.docs.document import servers
from api.http.strict_route import StrictRoute
from api.openai import document
from api.openai.routes import chat, files, fine_tuning, models, uploads, webhooks

ROUTERS = (files.router, uploads.router, fine_tuning.router, models.router, chat.router, webhooks.router)
router = APIRouter(route_class=StrictRoute)


@router.get(document.PATH)
def get_openapi(request: Request) -> Response:
    return JSONResponse(described(request.app))


def described(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document of `/v1`, made once."""
    if not hasattr(app.state, "openai_schema"):
        app.state.openai_schema = document.describe_face(ROUTERS, servers(app))
    schema: dict[str, Any] = app.state.openai_schema
    return schema
