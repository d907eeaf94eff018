"""Route class of this API: strict input, and entity tags on JSON answers.

Unknown or repeated query parameters are refused, not ignored; JSON bodies are read by `api.http.strict_json`; a JSON
`GET` carries an ETag and answers 304 to a matching If-None-Match.
"""

import hashlib
import json
from collections.abc import Callable, Coroutine
from email.message import Message
from typing import Any, get_origin

from fastapi import params
from fastapi.dependencies.utils import get_flat_params
from fastapi.routing import APIRoute
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from api.http.problems import INVALID_REQUEST, UNSUPPORTED_BODY, HttpError
from api.http.strict_json import parse, pointer_part, summary, text_fault
from core.domain.errors import FieldError, NotFound

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
RAW_BODY = "x-raw-body"
"""Key of `openapi_extra` for routes that read their body and query themselves."""
UNREAD_BODY = "x-unread-body"
"""Key of `openapi_extra` for routes that read their body themselves; their query is checked as any."""
OPEN_QUERY = "x-query-prefixes"
"""Key of `openapi_extra`: a list of prefixes of query parameters that the route reads itself."""


class StrictRoute(APIRoute):
    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()
        fields = get_flat_params(self.dependant)
        asked = [field for field in fields if isinstance(field.field_info, params.Query)]
        names = frozenset(field.alias for field in asked)
        lists = frozenset(field.alias for field in asked if get_origin(field.field_info.annotation) is list)
        extra = self.openapi_extra or {}
        prefixes = ("",) if extra.get(RAW_BODY) else tuple(extra.get(OPEN_QUERY, ()))

        async def handle_strictly(request: Request) -> Response:
            _check_path(request)
            _check_query(request.query_params, names, prefixes, lists)
            if not extra.get(RAW_BODY) and not extra.get(UNREAD_BODY):
                request = await _with_strict_body(request, takes_body=self.body_field is not None)
            return with_etag(request.scope, await handle(request))

        return handle_strictly


class _ParsedRequest(Request):
    """A request whose body is read and parsed."""

    def __init__(self, request: Request, body: bytes, value: Any) -> None:
        super().__init__(request.scope, request.receive)
        self._body = body
        self._value = value

    async def json(self) -> Any:
        return self._value


def with_etag(scope: Scope, response: Response) -> Response:
    """Tag a JSON answer to a GET, or replace it by 304 where the client has it already."""
    is_json = response.media_type == "application/json" or "json" in response.headers.get("content-type", "")
    if scope["method"] != "GET" or response.status_code != 200 or not is_json or not hasattr(response, "body"):
        return response
    etag = f'"{hashlib.sha256(response.body).hexdigest()[:32]}"'
    if is_none_match(Request(scope), etag):
        return Response(status_code=304, headers={"ETag": etag})
    response.headers["ETag"] = etag
    return response


def is_none_match(request: Request, etag: str) -> bool:
    """Whether If-None-Match names this tag; weak tags count as strong ones, as RFC 9110 defines for GET."""
    given = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    return etag in given or given == ["*"]


def _check_path(request: Request) -> None:
    if any("\x00" in str(value) for value in request.path_params.values()):
        raise NotFound("The address holds a NUL character, which no id has.")


def _check_query(query: QueryParams, names: frozenset[str], prefixes: tuple[str, ...], lists: frozenset[str]) -> None:
    errors: list[FieldError] = []
    keys = [key for key, _ in query.multi_items()]
    for key, value in query.multi_items():
        pointer = pointer_part(key)
        if key not in names and not (prefixes and key.startswith(prefixes)):
            known = ", ".join(f"`{name}`" for name in (*sorted(names), *(f"{start}…" for start in prefixes))) or "none"
            errors.append(FieldError(pointer, f"is not a query parameter of this address; it takes {known}"))
        elif keys.count(key) > 1 and key not in lists:
            errors.append(FieldError(pointer, "is given more than once"))
        elif fault := text_fault(key) or text_fault(value):
            errors.append(FieldError(pointer, fault))
    if errors:
        raise HttpError(INVALID_REQUEST, summary(errors), errors=errors)


async def _with_strict_body(request: Request, *, takes_body: bool) -> Request:
    if request.method in ("GET", "HEAD"):
        return request
    body = await request.body()
    if not body:
        return request
    _check_content_type(request)
    value = parse(body)
    # The same value in another spelling is the same request.
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
    request.state.body_sha256 = hashlib.sha256(canonical.encode()).hexdigest()
    if not takes_body and value not in ({}, None):
        detail = "This address takes no body."
        raise HttpError(INVALID_REQUEST, detail, errors=[FieldError("", detail)])
    return _ParsedRequest(request, body, value)


def _check_content_type(request: Request) -> None:
    header = Message()
    header["content-type"] = request.headers.get("content-type", "")
    if header.get_content_type() != "application/json":
        raise HttpError(UNSUPPORTED_BODY, "Send JSON, with the header `Content-Type: application/json`.")
    if request.headers.get("content-encoding", "identity") != "identity":
        raise HttpError(UNSUPPORTED_BODY, "Send the JSON uncompressed, without Content-Encoding.")
