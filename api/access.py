"""Who may ask: the holder of the key, a browser signed in with it, or, where there is no key, this machine alone."""

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api.problems import (
    API_KEY_INVALID,
    API_KEY_MISSING,
    FOREIGN_ORIGIN,
    NOT_LOOPBACK,
    Fault,
    problem_response,
)
from api.sessions import Sessions, is_own_origin

PUBLIC_PATHS = frozenset({"/", "/docs", "/docs.css", "/openapi.json", "/health/live", "/health/ready"})
"""Open to those without a key: they tell nothing about jobs and data."""
PUBLIC_PREFIXES = ("/ui/",)
"""The dashboard's own files, and signing in."""
_SAFE_METHODS = ("GET", "HEAD")
_SCHEME = "bearer "


_FOREIGN_PAGE = Fault(
    kind=FOREIGN_ORIGIN, detail="A signed-in browser may change things from this service's own pages only."
)


@dataclass(frozen=True)
class Caller:
    """Whose things a request is about."""

    project_id: str


class Access:
    """Refuses before anything of the body is read. What it lets through carries a `Caller` in `scope["state"]`."""

    def __init__(self, app: ASGIApp, sessions: Sessions | None, project_id: str) -> None:
        self._app = app
        self._sessions = sessions
        self._caller = Caller(project_id)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sessions = self._sessions
        fault = self._refusal_without_key(scope) if sessions is None else self._refusal_by_key(scope, sessions)
        if fault is not None:
            await problem_response(scope, fault)(scope, receive, send)
            return
        scope.setdefault("state", {})["caller"] = self._caller
        await self._app(scope, receive, send)

    @staticmethod
    def _refusal_by_key(scope: Scope, sessions: Sessions) -> Fault | None:
        if scope["path"] in PUBLIC_PATHS or scope["path"].startswith(PUBLIC_PREFIXES):
            return None
        headers = Headers(scope=scope)
        given = headers.get("authorization", "")
        if given[: len(_SCHEME)].lower() == _SCHEME:
            if sessions.is_key(given[len(_SCHEME) :].strip().encode("latin-1")):
                return None
            challenge = {"WWW-Authenticate": 'Bearer realm="preftune", error="invalid_token"'}
            return Fault(kind=API_KEY_INVALID, detail="The service does not know this key.", headers=challenge)
        if sessions.has(headers):
            return None if scope["method"] in _SAFE_METHODS or is_own_origin(headers) else _FOREIGN_PAGE
        detail = "Send the key of this service as `Authorization: Bearer <key>`."
        return Fault(kind=API_KEY_MISSING, detail=detail, headers={"WWW-Authenticate": 'Bearer realm="preftune"'})

    @staticmethod
    def _refusal_without_key(scope: Scope) -> Fault | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        client = scope.get("client")
        if not is_loopback(_hostname(host)) or (client is not None and not is_loopback(client[0])):
            detail = "This service has no API key, so it answers its own machine only. Set PREFTUNE_API_KEY to open it."
            return Fault(kind=NOT_LOOPBACK, detail=detail)
        origin = headers.get("origin")
        if origin is not None and origin.lower() != f"{scope['scheme']}://{host}".lower():
            detail = "This service has no API key, so pages of other sites may not use it."
            return Fault(kind=FOREIGN_ORIGIN, detail=detail)
        return None


def is_loopback(host: str) -> bool:
    """Does the name or address mean this machine, without asking a resolver?"""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _hostname(host_header: str) -> str:
    try:
        return urlsplit(f"//{host_header}").hostname or ""
    except ValueError:
        return ""
