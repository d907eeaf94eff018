"""Problem documents (RFC 9457): every answer of 400 and above is made here and nowhere else.

Under `/v1` they have OpenAI's form.

Errors of the domain carry a kind, which decides the status; what only HTTP can get wrong is a `ProblemKind` below.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Self

import orjson
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import Scope

from api.http.openai_errors import is_openai_path, openai_document, openai_headers, openai_status
from api.http.root_path import public_path
from core.domain.errors import DomainError, ErrorKind, FieldError
from core.storage.object_store import ObjectMissing, ObjectNotFound

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 2
RETRY_AFTER = {HTTPStatus.SERVICE_UNAVAILABLE: RETRY_AFTER_SECONDS, HTTPStatus.TOO_MANY_REQUESTS: 60}
"""Seconds: of an outage, and of a project that has taken what it may."""
MAX_ERRORS = 100
"""Faults of one payload that are listed; more teach nothing."""

STATUS_OF_KIND: dict[ErrorKind, HTTPStatus] = {
    "invalid": HTTPStatus.UNPROCESSABLE_ENTITY,
    "not_found": HTTPStatus.NOT_FOUND,
    "conflict": HTTPStatus.CONFLICT,
    "too_large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "unsupported": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "forbidden": HTTPStatus.FORBIDDEN,
    "limited": HTTPStatus.TOO_MANY_REQUESTS,
    "full": HTTPStatus.INSUFFICIENT_STORAGE,
    "unavailable": HTTPStatus.SERVICE_UNAVAILABLE,
    "fenced": HTTPStatus.CONFLICT,
}


@dataclass(frozen=True)
class ProblemKind:
    status: HTTPStatus
    code: str
    title: str


MALFORMED_JSON = ProblemKind(HTTPStatus.BAD_REQUEST, "malformed-json", "The body is not JSON")
MALFORMED_UPLOAD = ProblemKind(HTTPStatus.BAD_REQUEST, "malformed-upload", "The form is not well-formed")
API_KEY_MISSING = ProblemKind(HTTPStatus.UNAUTHORIZED, "api-key-missing", "An API key is needed")
API_KEY_INVALID = ProblemKind(HTTPStatus.UNAUTHORIZED, "api-key-invalid", "The API key is not valid")
SCOPE_MISSING = ProblemKind(HTTPStatus.FORBIDDEN, "scope-missing", "The API key may not do this")
RATE_LIMITED = ProblemKind(HTTPStatus.TOO_MANY_REQUESTS, "rate-limited", "Too many requests with this API key")
NOT_LOOPBACK = ProblemKind(HTTPStatus.FORBIDDEN, "not-loopback", "Without an API key only this machine is served")
FOREIGN_ORIGIN = ProblemKind(HTTPStatus.FORBIDDEN, "foreign-origin", "The request comes from another site")
IDENTITY_REFUSED = ProblemKind(HTTPStatus.FORBIDDEN, "identity-refused", "The named user is not let in")
ROUTE_NOT_FOUND = ProblemKind(HTTPStatus.NOT_FOUND, "route-not-found", "Not found")
METHOD_NOT_ALLOWED = ProblemKind(HTTPStatus.METHOD_NOT_ALLOWED, "method-not-allowed", "Method not allowed")
BODY_TOO_SLOW = ProblemKind(HTTPStatus.REQUEST_TIMEOUT, "body-too-slow", "The body came too slowly")
BODY_TOO_LARGE = ProblemKind(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body-too-large", "The body is over the limit")
UNSUPPORTED_BODY = ProblemKind(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported-body", "The body is of another type")
RANGE_NOT_SATISFIABLE = ProblemKind(
    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "range-not-satisfiable", "The range lies outside the file"
)
NO_ANSWER = ProblemKind(HTTPStatus.FAILED_DEPENDENCY, "webhook-no-answer", "The receiver of the webhook did not answer")
INVALID_REQUEST = ProblemKind(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-request", "The request is not valid")
TOO_MANY_STREAMS = ProblemKind(HTTPStatus.TOO_MANY_REQUESTS, "too-many-streams", "Too many streams are open")
TOO_MANY_DOWNLOADS = ProblemKind(HTTPStatus.TOO_MANY_REQUESTS, "too-many-downloads", "Too many downloads are under way")
TOO_MANY_ANSWERS = ProblemKind(HTTPStatus.TOO_MANY_REQUESTS, "too-many-answers", "Too many answers are under way")
TOO_MANY_REQUESTS = ProblemKind(HTTPStatus.TOO_MANY_REQUESTS, "too-many-requests", "Too many requests are in work")
TOO_MANY_WAITING = ProblemKind(HTTPStatus.TOO_MANY_REQUESTS, "too-many-waiting", "Too many requests wait")
SIGN_IN_THROTTLED = ProblemKind(HTTPStatus.TOO_MANY_REQUESTS, "sign-in-throttled", "Too many wrong keys")
NOT_READY = ProblemKind(HTTPStatus.SERVICE_UNAVAILABLE, "not-ready", "The service is unavailable")
INTERNAL_ERROR = ProblemKind(HTTPStatus.INTERNAL_SERVER_ERROR, "internal-error", "Something went wrong in the service")

HTTP_PROBLEMS: tuple[ProblemKind, ...] = (
    MALFORMED_JSON,
    MALFORMED_UPLOAD,
    API_KEY_MISSING,
    API_KEY_INVALID,
    SCOPE_MISSING,
    RATE_LIMITED,
    NOT_LOOPBACK,
    FOREIGN_ORIGIN,
    IDENTITY_REFUSED,
    ROUTE_NOT_FOUND,
    METHOD_NOT_ALLOWED,
    BODY_TOO_SLOW,
    BODY_TOO_LARGE,
    UNSUPPORTED_BODY,
    RANGE_NOT_SATISFIABLE,
    INVALID_REQUEST,
    NO_ANSWER,
    TOO_MANY_STREAMS,
    TOO_MANY_DOWNLOADS,
    TOO_MANY_ANSWERS,
    TOO_MANY_REQUESTS,
    TOO_MANY_WAITING,
    SIGN_IN_THROTTLED,
    NOT_READY,
    INTERNAL_ERROR,
)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One problem, independent of its request."""

    kind: ProblemKind
    detail: str
    errors: Sequence[FieldError] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    context: Mapping[str, Any] = field(default_factory=dict)
    """Further members of the document, JSON values only."""


class HttpError(Exception):
    """Raised for a fault that only the HTTP side knows."""

    def __init__(
        self,
        kind: ProblemKind,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.fault = Fault(kind=kind, detail=detail, errors=errors, headers=headers or {})

    @classmethod
    def of(cls, fault: Fault) -> Self:
        return cls(fault.kind, fault.detail, errors=fault.errors, headers=fault.headers)


def fault_of(error: DomainError) -> Fault:
    if isinstance(error, ObjectNotFound):  # a 404 would say that it never was
        error = ObjectMissing("What the service stored is gone from the store; restore it from a backup.")
    status = STATUS_OF_KIND[error.kind]
    seconds = RETRY_AFTER.get(status)
    headers = {} if seconds is None else {"Retry-After": str(seconds)}
    return Fault(
        kind=ProblemKind(status, error.code, error.title),
        detail=error.detail,
        errors=error.errors,
        headers=headers,
        context=error.context,
    )


def type_of(code: str) -> str:
    """Return the address at which the code is explained."""
    return public_path(f"/docs#problem-{code}")


def problem_response(scope: Scope, fault: Fault) -> Response:
    connection = HTTPConnection(scope)
    if is_openai_path(connection.url.path):
        return _openai_response(connection, fault)
    document: dict[str, Any] = {
        "type": type_of(fault.kind.code),
        "title": fault.kind.title,
        "status": fault.kind.status.value,
        "detail": fault.detail,
        "instance": public_path(connection.url.path),
        "code": fault.kind.code,
        "request_id": getattr(connection.state, "request_id", None),
    }
    if fault.errors:
        document["errors"] = [{"pointer": error.pointer, "detail": error.detail} for error in fault.errors[:MAX_ERRORS]]
    document = {**document, **{name: value for name, value in fault.context.items() if name not in document}}
    headers = {"Cache-Control": "no-store", **fault.headers}
    return Response(orjson.dumps(document), fault.kind.status.value, headers, MEDIA_TYPE)


def _openai_response(connection: HTTPConnection, fault: Fault) -> Response:
    kind, request_id = fault.kind, getattr(connection.state, "request_id", None)
    status = openai_status(kind.status.value)
    document = openai_document(status, kind.code, fault.detail, fault.errors[:MAX_ERRORS], request_id)
    headers = {"Cache-Control": "no-store", **openai_headers(status, kind.code), **fault.headers}
    return Response(orjson.dumps(document), status, headers, "application/json")
