"""What routes say of themselves in the OpenAPI document: problems, bodies that FastAPI does not know, bytes."""

from collections.abc import Iterator
from typing import Any

from fastapi.routing import APIRoute

from api.docs.client_shapes import without_null
from api.http.problems import HTTP_PROBLEMS, MEDIA_TYPE, STATUS_OF_KIND
from api.schemas.datasets import DatasetOptions
from core.domain.errors import DomainError

Responses = dict[int | str, dict[str, Any]]
_PROBLEM_SCHEMA = {"$ref": "#/components/schemas/Problem"}
_MEANINGS = {
    400: "The body cannot be parsed.",
    401: "The key is missing or not valid.",
    403: "The key may not do this; without any key, only this machine is served.",
    404: "Not found.",
    408: "The body came too slowly.",
    409: "Not possible in this state, or the first request with this Idempotency-Key is not answered yet.",
    413: "Over a limit.",
    415: "A body of another type.",
    416: "The range lies outside the file.",
    422: "Not valid: `errors` names every fault.",
    429: "Too many requests with this key, or the project has reached a limit; `Retry-After` says when to try again.",
    500: "Something went wrong in the service.",
    503: "Database or store do not answer just now; `Retry-After` says when to try again.",
    507: "The service's disk is down to its reserve: `detail` says what its operator can do.",
}
RETRY_AFTER = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}
REQUIRED_QUERY = "x-required-query"
"""Key of `openapi_extra`: query parameters that clients are to send, although there is another way."""

_OPTIONS = DatasetOptions.model_json_schema(ref_template="#/components/schemas/{model}")["properties"]
_JSON_TEXTS: dict[str, Any] = {
    name: {"type": "string", "description": _OPTIONS[name]["description"]}
    for name in ("columns", "metadata", "values", "ignore")
}
_TEXTS: dict[str, Any] = {name: without_null(schema) for name, schema in (_OPTIONS | _JSON_TEXTS).items()}
_FILE = {
    "type": "string",
    "format": "binary",
    "description": "JSONL, a JSON array, CSV, TSV, Parquet, Arrow or a tar of a saved dataset; compressed or not.",
}


def _body(media_type: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {media_type: {"schema": schema}}}}


UPLOAD_FORM = _body(
    "multipart/form-data", {"type": "object", "required": ["file"], "properties": {"file": _FILE, **_TEXTS}}
)
UPLOAD_RAW: dict[str, Any] = {
    "parameters": [
        {"name": name, "in": "query", "required": False, "description": schema["description"], "schema": schema}
        for name, schema in _TEXTS.items()
    ],
    **_body("application/octet-stream", _FILE),
}
PART_BODY = _body("application/octet-stream", {"type": "string", "format": "binary"})


def problems(*statuses: int) -> Responses:
    """Return `responses=` of a route that can answer with these problems."""
    content = {MEDIA_TYPE: {"schema": _PROBLEM_SCHEMA}}
    headers = {status: {"headers": RETRY_AFTER} for status in (429, 503)}
    return {
        status: {"description": _MEANINGS[status], "content": content, **headers.get(status, {})} for status in statuses
    }


def operation_id(route: APIRoute) -> str:
    """Return the function's name: what generated clients call the operation."""
    return route.name


def binary(description: str, *media_types: str) -> Responses:
    content = {media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in media_types}
    return {200: {"description": description, "content": content}}


def problem_codes() -> dict[str, tuple[int, str]]:
    """Return every code, with its status and title."""
    codes = {kind.code: (kind.status.value, kind.title) for kind in HTTP_PROBLEMS}
    for error in _error_classes(DomainError):
        codes[error.code] = (STATUS_OF_KIND[error.kind].value, error.title)
    return codes


def _error_classes(base: type[DomainError]) -> Iterator[type[DomainError]]:
    for error in base.__subclasses__():
        yield error
        yield from _error_classes(error)
