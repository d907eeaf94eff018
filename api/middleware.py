"""Outermost middleware: a request id, one log line, the last handler of exceptions, and security headers.

Plain ASGI, so that bodies and answers stream through untouched.
"""

import re
import secrets
import time
from collections.abc import Callable

import structlog
from opentelemetry import trace
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.access.callers import Caller
from api.downloads import CutShort
from api.http.problems import INTERNAL_ERROR, Fault, problem_response
from api.telemetry import HttpTelemetry
from core.telemetry import tracing

REQUEST_ID_HEADER = "X-Request-ID"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
NO_ROUTE = "none"
_CLIENT_GONE = 499
"""Logged as nginx does it: the client hung up before there was an answer."""

_PAGE_POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data:; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_DATA_POLICY = "default-src 'none'; frame-ancestors 'none'; sandbox"
_SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

log = structlog.get_logger("api")


class RequestContext:
    """Outermost layer. No exception leaves it, and no text of one reaches a client."""

    def __init__(self, app: ASGIApp, telemetry: HttpTelemetry) -> None:
        self._app = app
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        trace.get_current_span().set_attribute(f"{tracing.PREFIX}request_id", request_id)
        answer = _Answer(send, request_id)
        started = time.monotonic()
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, answer.send)
            except ClientDisconnect:
                answer.status = answer.status or _CLIENT_GONE
            except CutShort as error:
                log.error("answer_cut_short", path=scope["path"], reason=str(error))
                await self._last_answer(scope, receive, answer)
            except Exception:  # the edge: whatever else goes wrong becomes a 500 and a line in the log
                log.exception("unhandled", method=scope["method"], path=scope["path"])
                await self._last_answer(scope, receive, answer)
            seconds = time.monotonic() - started
            _log_access(scope, answer, seconds)
            route = getattr(scope.get("route"), "path", NO_ROUTE)
            self._telemetry.note(scope["method"], route, answer.status, seconds)

    async def _last_answer(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        if answer.status:
            return  # Begun already: the server closes the connection, and the client sees it cut short.
        detail = "The service failed to answer. Its log has the reason under this request_id."
        await problem_response(scope, Fault(kind=INTERNAL_ERROR, detail=detail))(scope, receive, answer.send)


class _Answer:
    """Sends with added headers, and records what was sent."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id
        self.status = 0
        self.num_bytes = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            _add_headers(MutableHeaders(scope=message), self._request_id)
        elif message["type"] == "http.response.body":
            self.num_bytes += len(message.get("body", b""))
        await self._send(message)


def _request_id(scope: Scope) -> str:
    given = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
    return given if _REQUEST_ID.fullmatch(given) else f"req_{secrets.token_hex(12)}"


def _add_headers(headers: MutableHeaders, request_id: str) -> None:
    headers[REQUEST_ID_HEADER] = request_id
    for name, value in _SECURITY_HEADERS.items():
        headers.setdefault(name, value)
    is_page = headers.get("content-type", "").startswith(("text/html", "text/css", "text/javascript"))
    headers.setdefault("Content-Security-Policy", _PAGE_POLICY if is_page else _DATA_POLICY)
    headers.setdefault("Cache-Control", "no-cache")


def _log_access(scope: Scope, answer: _Answer, seconds: float) -> None:
    write: Callable[..., None] = log.warning if answer.status >= 500 else log.info
    client = scope.get("client")
    # Without the query: it may hold what a user typed; the path holds ids only.
    write(
        "request",
        method=scope["method"],
        path=scope["path"],
        status=answer.status,
        num_bytes=answer.num_bytes,
        milliseconds=round(seconds * 1000, 1),
        client=client[0] if client else None,
        **_caller(scope),
    )


def _caller(scope: Scope) -> dict[str, str]:
    """Return who asked, as far as it is known: never a key, only its id."""
    caller: Caller | None = scope.get("state", {}).get("caller")
    if caller is None or caller.key_id is None:
        return {}
    user = {} if caller.user is None else {"user": caller.user}
    return {"key_id": caller.key_id, "project_id": caller.project_id, **user}
