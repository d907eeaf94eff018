"""Handlers that turn exceptions into problem documents."""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from api.http.problems import (
    INVALID_REQUEST,
    METHOD_NOT_ALLOWED,
    ROUTE_NOT_FOUND,
    Fault,
    HttpError,
    ProblemKind,
    fault_of,
    problem_response,
)
from api.http.strict_json import pointer_part, summary
from api.http.validation_messages import field_errors
from core.domain.errors import DomainError, FieldError

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def register(app: FastAPI) -> None:
    app.add_exception_handler(DomainError, _on_domain_error)
    app.add_exception_handler(HttpError, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_framework_error)


def _on_domain_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, DomainError)
    return problem_response(request.scope, fault_of(error))


def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HttpError)
    return problem_response(request.scope, error.fault)


def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors: list[FieldError] = []
    faults = list(error.errors())
    in_body = [{**fault, "loc": fault["loc"][1:]} for fault in faults if fault["loc"][0] == "body"]
    errors += field_errors(in_body, error.body, _body_type(request))
    elsewhere = [{**fault, "loc": fault["loc"][1:2]} for fault in faults if fault["loc"][0] != "body"]
    errors += field_errors(elsewhere, {fault["loc"][0]: fault.get("input") for fault in elsewhere})
    errors = errors or [FieldError(pointer_part(""), "is not valid")]
    return problem_response(request.scope, Fault(kind=INVALID_REQUEST, detail=summary(errors), errors=errors))


def _body_type(request: Request) -> Any:
    """Return the type of the route's body; None where it has none."""
    field = getattr(request.scope.get("route"), "body_field", None)
    return None if field is None else field.field_info.annotation


def _on_framework_error(request: Request, error: Exception) -> Response:
    """Handle what the framework itself refuses: unknown addresses and methods."""
    assert isinstance(error, HTTPException)
    path, method = request.url.path, request.method
    if error.status_code == 404:
        fault = Fault(kind=ROUTE_NOT_FOUND, detail=f"There is nothing at {path}; see /docs for all addresses.")
    elif error.status_code == 405:
        allowed = ", ".join(_allowed_methods(request))
        detail = f"{path} takes {allowed}, not {method}."
        fault = Fault(kind=METHOD_NOT_ALLOWED, detail=detail, headers={"Allow": allowed})
    else:
        kind = ProblemKind(HTTPStatus(error.status_code), "http-error", "The request cannot be served")
        fault = Fault(kind=kind, detail=str(error.detail), headers=dict(error.headers or {}))
    return problem_response(request.scope, fault)


def _allowed_methods(request: Request) -> list[str]:
    """Return the methods of all routes of this address; literal ones hide those with ids."""
    path = request.url.path
    routes = [route for included in request.app.router.routes for route in _routes_of(included)]
    routes = [route for route in routes if getattr(route, "path", None) == path] or routes
    asked = [{"type": "http", "method": method, "path": path, "root_path": ""} for method in METHODS]
    found = [str(scope["method"]) for scope in asked if any(route.matches(scope)[0] is Match.FULL for route in routes)]
    return ["GET", "HEAD", *found[1:]] if found[:1] == ["GET"] else found


def _routes_of(included: Any) -> list[Any]:
    """Return the routes; FastAPI keeps an included router as one route."""
    return list(included.original_router.routes) if hasattr(included, "original_router") else [included]
