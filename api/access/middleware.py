"""Authentication: a key, a browser session, or, while there never was a key, the service's own user."""

import ipaddress
import re
import time
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

import structlog
from anyio import CapacityLimiter, to_thread
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as ASGIScope

from api.access.key_ring import LOCAL, KeyRing
from api.access.local_peer import is_vouched
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
from core.services.access import audit
from core.services.access.api_keys import Grant
from core.services.access.audit import Actor

log = structlog.get_logger("api")

PUBLIC_PATHS = frozenset({"/", "/docs", "/docs.css", "/openapi.json", "/health/live", "/health/ready"})
"""Open to those without a key: they tell nothing about jobs and data."""
LIVENESS_PATH = "/health/live"
"""Answered without a look at anything."""
PUBLIC_PREFIXES = ("/ui/",)
"""The dashboard's own files, and signing in."""
OPERATOR_PATHS = frozenset({"/metrics"})
"""They tell of all projects together."""
ADMIN_PATHS = ("/keys", "/audit")
"""Paths that need the scope `admin`, with all below them."""
WRITERS_PATHS = re.compile(r".*/jobs/[^/]+/log/?")
"""Read by those who may write: what trainings print may quote the data."""
FORWARDING_HEADERS = ("forwarded", "via", "x-real-ip", "true-client-ip", "cf-connecting-ip")
"""What proxies add, besides all that begins with `x-forwarded-`."""
CONNECTION = "connection"
"""Key of `scope["state"]`: what the requests of one connection share."""
VOUCHED_SECONDS = 10.0
NOTED_REFUSALS_PER_MINUTE = 6
_MAX_LOOKS = 2
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


_UNVOUCHED = Fault(
    kind=API_KEY_MISSING,
    detail="This service has no API key yet, so without one it serves only programs of its own user on its own machine "
    "that are connected with no other. Send the key that lies as `local-key` in its data directory as "
    "`Authorization: Bearer <key>`; `preftune open` signs a browser in with it.",
    headers={"WWW-Authenticate": 'Bearer realm="preftune"'},
)
_FOREIGN_PAGE = Fault(
    kind=FOREIGN_ORIGIN, detail="A signed-in browser may change things from this service's own pages only."
)


@dataclass(frozen=True)
class Caller:
    """Project of a request, and its rights."""

    project_id: str
    key_id: str | None = None
    """None: nobody has shown one."""
    scope: Scope = Scope.OPERATOR
    max_upload_bytes: int | None = None
    """Limit of one file; None: the service's."""
    user: str | None = None
    """Name that a trusted proxy vouches for."""

    @property
    def name(self) -> str:
        return self.user or self.key_id or "nobody"


LOCAL_USER = Caller(DEFAULT_PROJECT_ID, LOCAL.key_id)
"""Where there never was a key, the service's own user on this machine."""
NOBODY = Caller(DEFAULT_PROJECT_ID, scope=Scope.READ)
"""Who asks for what is public."""


def needed_scope(method: str, path: str) -> Scope:
    if path in OPERATOR_PATHS:
        return Scope.OPERATOR
    if path.startswith(ADMIN_PATHS):
        return Scope.ADMIN
    return Scope.READ if method in _READING and not WRITERS_PATHS.fullmatch(path) else Scope.WRITE


class Access:
    """Refuses before any of the body is read; accepted requests carry a `Caller` in `scope["state"]`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._limits = RateLimits()
        self._noted = RateLimits()
        self._looks = CapacityLimiter(_MAX_LOOKS)

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            verdict = NOBODY if scope["path"] == LIVENESS_PATH else await self._judge(scope)
        except Unavailable as error:
            verdict = NOBODY if _is_public(scope["path"]) else fault_of(error)
        if isinstance(verdict, Fault):
            await problem_response(scope, verdict)(scope, receive, send)
            return
        scope.setdefault("state", {})["caller"] = verdict
        with audit.acting(actor_of(scope, verdict)):
            await self._app(scope, receive, send)

    async def _judge(self, scope: ASGIScope) -> Caller | Fault:
        ring: KeyRing = scope["app"].state.key_ring
        headers = Headers(scope=scope)
        has_keys = await ring.has_keys()
        if not has_keys:
            without_key = _refusal_without_key(scope, headers)
            if without_key is not None:
                return without_key
            if await self._is_vouched(scope):
                return LOCAL_USER
        given = headers.get("authorization", "")
        if given[: len(_SCHEME)].lower() == _SCHEME:
            grant = await ring.grant(given[len(_SCHEME) :].strip().encode("latin-1"))
            refusal = _INVALID
        else:
            grant = await session_grant(ring, headers)
            refusal = _MISSING if has_keys else _UNVOUCHED
            if grant is not None and scope["method"] not in _READING and not is_own_origin(headers):
                grant, refusal = None, _FOREIGN_PAGE
        if _is_public(scope["path"]):
            return _caller(grant) if grant else NOBODY
        if grant is None:
            return refusal
        needed = needed_scope(scope["method"], scope["path"])
        if not grant.scope.includes(needed):
            await self._note_refusal(scope, grant)
        return self._refusal_of(grant, needed) or _caller(grant)

    async def _note_refusal(self, scope: ASGIScope, grant: Grant) -> None:
        """Write what a known key was refused into the audit trail, a few times a minute for each."""
        if self._noted.seconds_to_wait(grant.key_id, NOTED_REFUSALS_PER_MINUTE):
            return
        what = f"{scope['method']} {scope['path']}"
        work = partial(
            audit.record,
            scope["app"].state.backend,
            actor_of(scope, _caller(grant)),
            grant.project_id,
            "access.refused",
            what,
            audit.REFUSED,
        )
        try:
            await to_thread.run_sync(work, limiter=self._looks)
        except Unavailable as error:
            log.warning("refusal_not_recorded", key_id=grant.key_id, what=what, reason=error.detail)

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

    async def _is_vouched(self, scope: ASGIScope) -> bool:
        """Whether the peer is vouched for, looked up once per connection."""
        client, server = scope.get("client"), scope.get("server")
        if client is None or server is None or server[1] is None:
            return False
        shared: dict[str, float] = scope.get("state", {}).get(CONNECTION, {})
        now = time.monotonic()
        if now < shared.get("vouched_until", 0.0):
            return True
        found = await to_thread.run_sync(is_vouched, tuple(client), tuple(server), limiter=self._looks)
        if found:
            shared["vouched_until"] = now + VOUCHED_SECONDS
        return found


def _refusal_without_key(scope: ASGIScope, headers: Headers) -> Fault | None:
    host = headers.get("host", "")
    client = scope.get("client")
    is_forwarded = any(name in FORWARDING_HEADERS or name.startswith("x-forwarded-") for name in headers)
    if is_forwarded or not is_loopback(_hostname(host)) or (client is not None and not is_loopback(client[0])):
        detail = "This service has no API key, so it answers its own machine only. Set PREFTUNE_API_KEY to open it."
        return Fault(kind=NOT_LOOPBACK, detail=detail)
    origin = headers.get("origin")
    if origin is not None and origin.lower() != f"{scope['scheme']}://{host}".lower():
        detail = "This service has no API key, so pages of other sites may not use it."
        return Fault(kind=FOREIGN_ORIGIN, detail=detail)
    return None


def actor_of(scope: ASGIScope, caller: Caller) -> Actor:
    client = scope.get("client")
    return Actor(
        name=caller.name,
        key_id=caller.key_id,
        address=client[0] if client else None,
        request_id=scope.get("state", {}).get("request_id"),
    )


def _is_public(path: str) -> bool:
    return path in PUBLIC_PATHS or path.startswith(PUBLIC_PREFIXES)


def _caller(grant: Grant) -> Caller:
    return Caller(grant.project_id, grant.key_id, grant.scope, grant.max_upload_bytes)


def is_loopback(host: str) -> bool:
    """Whether the name or address means this machine, without asking a resolver."""
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
