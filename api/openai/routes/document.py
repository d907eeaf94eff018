"""`/v1/openapi.json`, and the routers that it describes."""

from functools import cache
from typing import Any

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from api.http.strict_route import StrictRoute
from api.openai import document
from api.openai.routes import files, fine_tuning, models, uploads, webhooks

ROUTERS = (files.router, uploads.router, fine_tuning.router, models.router, webhooks.router)
router = APIRouter(route_class=StrictRoute)


@router.get(document.PATH)
def get_openapi() -> Response:
    return JSONResponse(described())


@cache
def described() -> dict[str, Any]:
    """Return the OpenAPI document of `/v1`, made once."""
    return document.describe_face(ROUTERS)
