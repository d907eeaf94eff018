"""OpenAPI document of `/v1`, for tools; its words are OpenAI's, and its errors have their form."""

from collections.abc import Iterable
from importlib.metadata import version
from typing import Any, Final

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from api.docs.client_shapes import shape_for_clients
from api.docs.document import CONTACT, say_scope
from api.docs.openapi import operation_id
from api.openai.expiry import FORM_FIELDS, ExpiresAfter
from api.openai.objects import ErrorAnswer

PATH: Final = "/v1/openapi.json"
DESCRIPTION = (
    "OpenAI's API for fine-tuning and for chats, over this service; the `openai` package works unmodified. What is "
    "made here is seen under `/datasets` and `/jobs`, too: their document is `/openapi.json`."
)
TAGS = {
    "files": "Data sets and result files.",
    "uploads": "Large files in parts.",
    "fine_tuning": "Jobs, their events and checkpoints.",
    "models": "Base models and tuned policies.",
    "chat": "Answers of base models and policies.",
    "completions": "Texts that base models and policies go on with.",
    "webhook_endpoints": "Who is told when jobs end.",
    "webhook_event_types": "What can be told.",
}
"""Groups of addresses, by the part of the path after `/v1`."""
_MEANINGS = {
    400: "Not valid: `param` names the place.",
    401: "The key is missing or not valid.",
    403: "The key may not do this; without any key, only this machine is served.",
    404: "Not found.",
    408: "The body came too slowly.",
    409: "Not possible in this state; `x-should-retry: false` where time does not change that.",
    413: "Over a limit.",
    415: "A body of another type.",
    424: "The receiver of the webhook did not answer.",
    429: "Too many requests with this key, or the project has reached a limit; `Retry-After` says when to try again.",
    500: "Something went wrong in the service.",
    503: "Database or store do not answer just now.",
    507: "The service's disk is down to its reserve.",
}
_EVERYWHERE = (400, 401, 403, 429, 500, 503)
_OF_BODIES = (408, 409, 413, 415, 507)
_NOT_OURS = ("HTTPValidationError", "ValidationError")
_BYTES = {"type": "string", "format": "binary"}
_EXPIRY = ExpiresAfter.model_json_schema()["properties"]
_FORMS: dict[str, dict[str, Any]] = {
    "/v1/files": {
        "type": "object",
        "required": ["purpose", "file"],
        "additionalProperties": False,
        "properties": {
            "purpose": {"const": "fine-tune", "type": "string"},
            **{field: _EXPIRY[name] for field, name in FORM_FIELDS.items()},
            "file": _BYTES,
        },
    },
    "/v1/uploads/{upload_id}/parts": {"type": "object", "required": ["data"], "properties": {"data": _BYTES}},
}
_METADATA = {
    "name": "metadata",
    "in": "query",
    "required": False,
    "description": "Only jobs with this metadata: `metadata[<key>]=<value>` for each key.",
    "style": "deepObject",
    "explode": True,
    "schema": {"type": "object", "additionalProperties": {"type": "string"}},
}


def describe_face(routers: Iterable[APIRouter], servers: list[dict[str, str]]) -> dict[str, Any]:
    """Return the OpenAPI document of the routers, which are all below `/v1`."""
    face = FastAPI(openapi_url=None, generate_unique_id_function=operation_id)
    for router in routers:
        face.include_router(router)
    document = get_openapi(
        title="Preftune for OpenAI's clients",
        version=version("preftune"),
        description=DESCRIPTION,
        routes=face.routes,
        contact=CONTACT,
        servers=servers,
    )
    schemas = document["components"]["schemas"]
    _, definitions = models_json_schema([(ErrorAnswer, "serialization")], ref_template="#/components/schemas/{model}")
    schemas |= definitions["$defs"]
    for name in _NOT_OURS:
        schemas.pop(name, None)
    for path, item in document["paths"].items():
        for method, operation in item.items():
            _complete(path, method.upper(), operation)
    used = sorted({operation["tags"][0] for item in document["paths"].values() for operation in item.values()})
    document["tags"] = [{"name": name, "description": TAGS.get(name, f"Below /v1/{name}.")} for name in used]
    shape_for_clients(document, {})
    return document


def _complete(path: str, method: str, operation: dict[str, Any]) -> None:
    """Add what FastAPI does not know: scopes, errors, bodies that routes read themselves, the filter by metadata."""
    if path in _FORMS and method == "POST":
        content = {"multipart/form-data": {"schema": _FORMS[path]}}
        operation["requestBody"] = {"required": True, "content": content}
    if path == "/v1/fine_tuning/jobs" and method == "GET":
        others = [parameter for parameter in operation["parameters"] if parameter["name"] != "metadata"]
        operation["parameters"] = [*others, _METADATA]
    statuses = [*_EVERYWHERE, *(_OF_BODIES if method != "GET" else ())]
    statuses += (
        [404] * ("{" in path or path.endswith("/completions"))
        + [409] * path.endswith("/content")
        + [424] * path.endswith("/test")
    )
    operation["responses"].pop("422", None)
    schema = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorAnswer"}}}
    operation["responses"] |= {str(code): {"description": _MEANINGS[code], "content": schema} for code in statuses}
    operation["responses"] = dict(sorted(operation["responses"].items()))
    for key in [key for key in operation if key.startswith("x-")]:
        del operation[key]
    say_scope(method, path, operation)
    operation["tags"] = [path.split("/")[2]]
