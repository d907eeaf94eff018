"""Who may ask: the holder of a key, a browser signed in with it, or, where there is no key, this machine alone."""

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as ASGIScope

from api.access.key_ring import KeyRing
from api.access.rate_limits import RateLimits
from api.access.sessions import is_own_origin, session_grant
from api.http.problems import (
    API_KEY_INVALID,
    API_KEY_MISSING,
    FOREIGN_ORIGIN,
    NOT_LOOPBACK,
    RATE_LIMITED,
    SCOPE_MISSING,
    Fault,
    fault_of,
    problem_response,
)
from core.domain.access import DEFAULT_PROJECT_ID, Scope
from core.domain.errors import Unavailable
from core.services.access.api_keys import Grant

PUBLIC_PATHS = frozenset({"/", "/docs", "/docs.css", "/openapi.json", "/health/live", "/health/ready"})
"""Open to those without a key: they tell nothing about jobs and data."""
PUBLIC_PREFIXES = ("/ui/",)
"""The dashboard's own files, and signing in."""
ADMIN_PATHS = frozenset({"/metrics"})
"""They tell of all projects together."""
_SCHEME = "bearer "
_READING = ("GET", "HEAD")
_MISSING = Fault(
    kind=API_KEY_MISSING,
    detail="Send a key of this service as `Authorization: Bearer <key>`.",
    headers={"WWW-Authenticate": 'Bearer realm="preftune"'},
)
_INVALID = Fault(
    kind=API_KEY_INVALID,
    detail="The service does not know this key, or it is revoked or expired.",
    headers={"WWW-Authenticate": 'Bearer realm="preftune", error="invalid_token"'},
)


_FOREIGN_PAGE = Fault(
    kind=FOREIGN_ORIGIN, detail="A signed-in browser may change things from this service's own pages only."
)


@dataclass(frozen=True)
class Caller:
    """Whose things a request is about, and what it may do with them."""

    project_id: str
    scope: Scope = Scope.ADMIN
    max_upload_bytes: int | None = None
    """Of one file; None: as the service has it."""


LOCAL_USER = Caller(DEFAULT_PROJECT_ID)
"""Where there is no key, whoever uses this machine."""
NOBODY = Caller(DEFAULT_PROJECT_ID, Scope.READ)
"""Who asks for what is public."""


def needed_scope(method: str, path: str) -> Scope:
    if path in ADMIN_PATHS:
        return Scope.ADMIN
    return Scope.READ if method in _READING else Scope.WRITE


class Access:
    """Refuses before anything of the body is read. What it lets through carries a `Caller` in `scope["state"]`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._limits = RateLimits()

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            verdict = await self._judge(scope)
        except Unavailable as error:
            verdict = NOBODY if _is_public(scope["path"]) else fault_of(error)
        if isinstance(verdict, Fault):
            await problem_response(scope, verdict)(scope, receive, send)
            return
        scope.setdefault("state", {})["caller"] = verdict
        await self._app(scope, receive, send)

    async def _judge(self, scope: ASGIScope) -> Caller | Fault:
        ring: KeyRing = scope["app"].state.key_ring
        if not await ring.has_keys():
            return self._refusal_without_key(scope) or LOCAL_USER
        headers = Headers(scope=scope)
        given = headers.get("authorization", "")
        if given[: len(_SCHEME)].lower() == _SCHEME:
            grant = await ring.grant(given[len(_SCHEME) :].strip().encode("latin-1"))
            refusal = _INVALID
        else:
            grant = await session_grant(ring, headers)
            refusal = _MISSING
            if grant is not None and scope["method"] not in _READING and not is_own_origin(headers):
                grant, refusal = None, _FOREIGN_PAGE
        if _is_public(scope["path"]):
            return _caller(grant) if grant else NOBODY
        if grant is None:
            return refusal
        return self._refusal_of(grant, needed_scope(scope["method"], scope["path"])) or _caller(grant)

    def _refusal_of(self, grant: Grant, needed: Scope) -> Fault | None:
        if not grant.scope.includes(needed):
            challenge = f'Bearer realm="preftune", error="insufficient_scope", scope="{needed.value}"'
            detail = f"This key may {grant.scope.value}; the request needs the scope {needed.value}."
            return Fault(kind=SCOPE_MISSING, detail=detail, headers={"WWW-Authenticate": challenge})
        rate = grant.requests_per_minute
        seconds = self._limits.seconds_to_wait(grant.key_id, rate) if rate is not None else 0
        if seconds == 0:
            return None
        detail = f"{rate} requests a minute are allowed with this key; ask again in {seconds} s."
        return Fault(kind=RATE_LIMITED, detail=detail, headers={"Retry-After": str(seconds)})

    @staticmethod
    def _refusal_without_key(scope: ASGIScope) -> Fault | None:
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


def _is_public(path: str) -> bool:
    return path in PUBLIC_PATHS or path.startswith(PUBLIC_PREFIXES)


def _caller(grant: Grant) -> Caller:
    return Caller(grant.project_id, grant.scope, grant.max_upload_bytes)


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
