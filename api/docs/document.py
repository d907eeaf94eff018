"""The OpenAPI document, made once: what FastAPI finds in the routes, completed for people and for typed clients."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from api.access.callers import is_read_by_users, needed_scope
from api.docs.client_shapes import shape_for_clients
from api.docs.enum_names import ENUM_NAMES
from api.docs.examples import add_examples
from api.docs.openapi import REQUIRED_QUERY, problems
from api.schemas.job_records import StreamData
from api.schemas.problems import Problem
from core.domain.jobs.job_spec import JobRequest, JobSpec

Json = dict[str, Any]

_EVERYWHERE = (401, 403, 422, 429, 500)
_NOT_OURS = ("HTTPValidationError", "ValidationError")
"""What FastAPI would answer to what is not valid."""
_UNSEEN = (Problem, JobSpec, StreamData)
"""Models of answers that no route declares as such."""
SCOPE = "x-scope"
"""Member of an operation: the scope that its key needs."""
CONTACT = {"name": "The operator of this service"}
_ETAG = {
    "ETag": {
        "description": "Of this answer: sent as `If-None-Match`, it gets 304 without a body while nothing has changed.",
        "schema": {"type": "string"},
    }
}
_LOCATION = {"Location": {"description": "Address of what was made.", "schema": {"type": "string"}}}


def describe(app: FastAPI) -> Json:
    """Return the OpenAPI document, made once."""
    if app.openapi_schema:
        return app.openapi_schema
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        routes=app.routes,
        tags=app.openapi_tags,
        contact=CONTACT,
        servers=servers(app),
    )
    schemas = document["components"]["schemas"]
    _, definitions = models_json_schema(
        [(model, "serialization") for model in _UNSEEN], ref_template="#/components/schemas/{model}"
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
            _complete(method.upper(), path, operation)
    shape_for_clients(document, ENUM_NAMES)
    add_examples(document)
    app.openapi_schema = document
    return document


def servers(app: FastAPI) -> list[dict[str, str]]:
    """Return where the service is, relative to its document: at the root, or below a proxy's path."""
    return [{"url": app.state.settings.root_path or "/"}]


def say_scope(method: str, path: str, operation: Json) -> None:
    """State the scope in words and as a member: OpenAPI knows scopes of OAuth alone."""
    scope = needed_scope(method, path).value
    operation["security"] = [{name: [] for name in scheme} for scheme in operation["security"]]
    operation[SCOPE] = scope
    named = f"`{scope}` or `use`" if is_read_by_users(method, path) else f"`{scope}`"
    operation["description"] = f"{operation.get('description', '')}\n\nThe key needs the scope {named}.".strip()


def _named(schema: Json, name: str) -> Json:
    return {"description": schema["description"], "$ref": f"#/components/schemas/{name}"}


def _complete(method: str, path: str, operation: Json) -> None:
    required = operation.get(REQUIRED_QUERY, ())
    for key in [key for key in operation if key.startswith("x-")]:
        del operation[key]
    if operation.get("security"):
        say_scope(method, path, operation)
    else:
        operation["security"] = []
    statuses = _EVERYWHERE if operation["security"] else (422, 500)
    operation["responses"] |= {str(status): response for status, response in problems(*statuses).items()}
    operation["responses"] = dict(sorted(operation["responses"].items()))
    for parameter in operation.get("parameters", []):
        parameter["required"] = parameter["required"] or parameter["name"] in required
    for status, response in operation["responses"].items():
        _say_headers(method, status, response)


def _say_headers(method: str, status: str, response: Json) -> None:
    headers: Json = {}
    if method == "GET" and status == "200" and "application/json" in response.get("content", {}):
        headers |= _ETAG
    if "`Location`" in response["description"]:
        headers |= _LOCATION
    if headers:
        response["headers"] = response.get("headers", {}) | headers
