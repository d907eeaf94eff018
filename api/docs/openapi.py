"""OpenAPI description: problems on every operation, and details of bodies that FastAPI does not know."""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from api.access.callers import needed_scope
from api.http.problems import HTTP_PROBLEMS, MEDIA_TYPE, STATUS_OF_KIND
from api.schemas.datasets import DatasetOptions
from api.schemas.problems import Problem
from core.domain.errors import DomainError
from core.domain.jobs.job_spec import JobRequest, JobSpec

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
_EVERYWHERE = (401, 403, 422, 429, 500)
_NOT_OURS = ("HTTPValidationError", "ValidationError")
"""What FastAPI would answer to what is not valid."""

METADATA_FILTER: dict[str, Any] = {
    "parameters": [
        {
            "name": "metadata",
            "in": "query",
            "required": False,
            "description": "Only jobs with this metadata: one parameter `metadata.<key>` for each key.",
            "style": "form",
            "explode": True,
            "schema": {"type": "object", "additionalProperties": {"type": "string"}},
        }
    ]
}


_OPTIONS = DatasetOptions.model_json_schema(ref_template="#/components/schemas/{model}")["properties"]
_JSON_TEXTS: dict[str, Any] = {
    name: {"type": "string", "contentMediaType": "application/json", "description": _OPTIONS[name]["description"]}
    for name in ("columns", "metadata", "values", "ignore")
}
_FORM_FIELDS: dict[str, Any] = {**_OPTIONS, **_JSON_TEXTS}
_FILE = {
    "type": "string",
    "format": "binary",
    "description": "JSONL, a JSON array, CSV, TSV, Parquet, Arrow or a tar of a saved dataset; compressed or not.",
}
UPLOAD_BODY: dict[str, Any] = {
    "parameters": [
        {"name": name, "in": "query", "required": False, "description": schema["description"], "schema": schema}
        for name, schema in _FORM_FIELDS.items()
    ],
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {"type": "object", "required": ["file"], "properties": {"file": _FILE, **_FORM_FIELDS}}
            },
            "application/octet-stream": {"schema": _FILE},
        },
    },
}


PART_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


def problems(*statuses: int) -> Responses:
    """Return `responses=` of a route that can answer with these problems."""
    content = {MEDIA_TYPE: {"schema": _PROBLEM_SCHEMA}}
    return {status: {"description": _MEANINGS[status], "content": content} for status in statuses}


def binary(description: str, *media_types: str) -> Responses:
    content = {media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in media_types}
    return {200: {"description": description, "content": content}}


def describe(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document, made once."""
    if app.openapi_schema:
        return app.openapi_schema
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        routes=app.routes,
        tags=app.openapi_tags,
        servers=[{"url": root}] if (root := app.state.settings.root_path) else None,
    )
    schemas = document["components"]["schemas"]
    _, definitions = models_json_schema(
        [(Problem, "serialization"), (JobSpec, "serialization")], ref_template="#/components/schemas/{model}"
    )
    for name, schema in definitions["$defs"].items():
        schemas.setdefault(name, schema)
    schemas["Job"]["properties"]["spec"] = _named(schemas["Job"]["properties"]["spec"], JobSpec.__name__)
    schemas["Job"]["properties"]["requested"] = _named(schemas["Job"]["properties"]["requested"], JobRequest.__name__)
    schemas["JobPreview"]["properties"]["spec"] = _named(schemas["JobPreview"]["properties"]["spec"], JobSpec.__name__)
    for name in _NOT_OURS:
        schemas.pop(name, None)
    for path, item in document["paths"].items():
        for method, operation in item.items():
            _complete(needed_scope(method.upper(), path).value, operation)
    app.openapi_schema = document
    return document


def _named(schema: dict[str, Any], name: str) -> dict[str, Any]:
    return {"description": schema["description"], "$ref": f"#/components/schemas/{name}"}


def _complete(scope: str, operation: dict[str, Any]) -> None:
    if "security" in operation:
        operation["security"] = [{name: [scope] for name in scheme} for scheme in operation["security"]]
    statuses = _EVERYWHERE if operation.get("security") else (422, 500)
    operation["responses"] |= {str(status): response for status, response in problems(*statuses).items()}
    operation["responses"] = dict(sorted(operation["responses"].items()))
    for key in [key for key in operation if key.startswith("x-")]:
        del operation[key]


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
