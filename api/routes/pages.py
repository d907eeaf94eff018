"""The description of the API, for tools and as a page to read."""

from functools import cache
from importlib import resources

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from api.docs.document import describe
from api.docs.reference_page import render
from api.http.strict_route import StrictRoute

router = APIRouter(include_in_schema=False, route_class=StrictRoute)


@router.get("/openapi.json")
def get_openapi(request: Request) -> Response:
    return JSONResponse(describe(request.app))


@router.get("/docs")
def get_docs(request: Request) -> Response:
    return HTMLResponse(render(describe(request.app)))


@router.get("/docs.css")
def get_stylesheet() -> Response:
    return Response(_web_file("docs.css"), media_type="text/css")


@router.get("/docs.js")
def get_script() -> Response:
    return Response(_web_file("docs.js"), media_type="text/javascript")


@cache
def _web_file(name: str) -> str:
    return (resources.files("api") / "web" / name).read_text(encoding="utf-8")
