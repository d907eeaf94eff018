"""Authentication: a key, an identity that a trusted proxy names, a browser session, or the service's own user."""

import ipaddress
import time
from urllib.parse import urlsplit

import structlog
from anyio import CapacityLimiter, to_thread
from starlette.datastructures import Headers
from starlette.types import Scope as ASGIScope

from api.access.callers import LOCAL_USER, READING, Caller
from api.access.failures import KEYS_OF_ADDRESS, KEYS_OF_ALL, FailureThrottle
from api.access.identity import IdentityHeaders
from api.access.key_ring import KeyRing
from api.access.local_peer import is_vouched
from api.access.proxies import IS_PROXIED
from api.access.sessions import foreign_page_detail, is_own_origin, session_grant
from api.http.problems import (
    API_KEY_INVALID,
    API_KEY_MISSING,
    FOREIGN_ORIGIN,
    IDENTITY_REFUSED,
    NOT_LOOPBACK,
    SIGN_IN_THROTTLED,
    Fault,
    HttpError,
)
from api.telemetry import AuthFailures
from core.services.access.api_keys import Grant

FORWARDING_HEADERS = ("forwarded", "via", "x-real-ip", "true-client-ip", "cf-connecting-ip")
"""What proxies add, besides all that begins with `x-forwarded-`."""
CONNECTION = "connection"
"""Key of `scope["state"]`: what the requests of one connection share."""
VOUCHED_SECONDS = 10.0
_MAX_LOOKS = 2
_SCHEME = "bearer "
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
_UNTRUSTED_IDENTITY = Fault(
    kind=IDENTITY_REFUSED,
    detail="The request names a user in a header that only a trusted proxy may send (PREFTUNE_TRUSTED_PROXIES).",
)

log = structlog.get_logger("api")


class Authenticator:
    """Tells who asks. Lives on the event loop."""

    def __init__(self, ring: KeyRing, identities: IdentityHeaders | None, failures: AuthFailures) -> None:
        self._ring = ring
        self._identities = identities
        self._failures = failures
        self._throttle = FailureThrottle(KEYS_OF_ADDRESS, KEYS_OF_ALL)
        self._looks = CapacityLimiter(_MAX_LOOKS)

    async def authenticate(self, scope: ASGIScope, *, is_counted: bool = True) -> Grant | Caller | Fault:
        """Return the rights of a request, `LOCAL_USER`, or why there are none.

        Raises Unavailable, and HttpError for what gets nothing that is public either.
        """
        headers = Headers(scope=scope)
        has_keys = self._identities is not None or await self._ring.has_keys()
        if not has_keys:
            without_key = _refusal_without_key(scope, headers)
            if without_key is not None:
                raise HttpError.of(without_key)
            if await self._is_vouched(scope):
                return LOCAL_USER
        given = headers.get("authorization", "")
        if given[: len(_SCHEME)].lower() == _SCHEME:
            shown = given[len(_SCHEME) :].strip().encode("latin-1")
            return await self._holder_of_key(scope, shown, is_counted=is_counted)
        if self._identities is not None and self._identities.is_given(headers):
            found = await self._named_user(scope, headers, self._identities)
        else:
            found = await session_grant(self._ring, headers, scope["scheme"])
        if found is None:
            return _MISSING if has_keys else _UNVOUCHED
        if isinstance(found, Grant) and scope["method"] not in READING and not is_own_origin(headers):
            return Fault(kind=FOREIGN_ORIGIN, detail=foreign_page_detail(headers))
        return found

    async def _holder_of_key(self, scope: ASGIScope, shown: bytes, *, is_counted: bool) -> Grant | Fault:
        """Judge a key. One that worked before is judged at once; others wait where too many were wrong."""
        is_new = is_counted and not self._ring.is_known(shown)
        address = address_of(scope)
        seconds = self._throttle.seconds_to_wait(address) if is_new else 0
        if seconds:
            self._failures.note("key_throttled")
            return throttled(seconds)
        grant = await self._ring.grant(shown)
        if grant is None:
            self._failures.note("key")
            return _INVALID
        if is_new:
            self._throttle.give_back(address)
        return grant

    async def _named_user(
        self, scope: ASGIScope, headers: Headers, identities: IdentityHeaders
    ) -> Grant | Fault | None:
        if not scope.get("state", {}).get(IS_PROXIED, False):
            self._failures.note("identity")
            raise HttpError.of(_UNTRUSTED_IDENTITY)
        identity = identities.find(headers)
        if identity is None:
            return None
        role = identity.role
        grant = await self._ring.grant_of_user(identity.user, role.project_id, role.scope) if role else None
        if grant is None:
            self._failures.note("identity")
            detail = f"{identity.user} is signed in, but no role is given to it here; ask the operator of this service."
            return Fault(kind=IDENTITY_REFUSED, detail=detail)
        return grant

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


def throttled(seconds: int) -> Fault:
    detail = f"Too many wrong keys came from this address, or from all together; try again in {seconds} s."
    return Fault(kind=SIGN_IN_THROTTLED, detail=detail, headers={"Retry-After": str(seconds)})


def address_of(scope: ASGIScope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""


def is_loopback(host: str) -> bool:
    """Whether the name or address means this machine, without asking a resolver."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


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


def _hostname(host_header: str) -> str:
    try:
        return urlsplit(f"//{host_header}").hostname or ""
    except ValueError:
        return ""
