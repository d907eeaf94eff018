"""Access: who asks is told from who may, before any of the body is read; shares and rates are kept."""

from functools import partial

import structlog
from anyio import CapacityLimiter, to_thread
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as ASGIScope

from api.access.authentication import Authenticator
from api.access.callers import LIVENESS_PATH, NOBODY, Caller, actor_of, caller_of, is_public, may, needed_scope
from api.access.rate_limits import RateLimits, SharedRateLimits
from api.access.shares import holder_of, shares_of
from api.http.problems import RATE_LIMITED, SCOPE_MISSING, Fault, HttpError, fault_of, problem_response
from core.domain.errors import Unavailable
from core.services.access import audit
from core.services.access.api_keys import Grant

STILL_ALLOWED = "still_allowed"
"""Key of `scope["state"]`: asks whether the key or session of the request works yet."""
NOTED_REFUSALS_PER_MINUTE = 6
_MAX_WRITES = 2

log = structlog.get_logger("api")


class Access:
    """Refuses before any of the body is read; accepted requests carry a `Caller` in `scope["state"]`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._limits = SharedRateLimits()
        self._noted = RateLimits()
        self._writes = CapacityLimiter(_MAX_WRITES)

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == LIVENESS_PATH:
            scope.setdefault("state", {})["caller"] = NOBODY  # answered without a look at anything
            await self._app(scope, receive, send)
            return
        try:
            verdict = await self._judge(scope)
        except Unavailable as error:
            verdict = NOBODY if is_public(scope["path"]) else fault_of(error)
        except HttpError as error:
            verdict = error.fault
        if isinstance(verdict, Fault):
            await problem_response(scope, verdict)(scope, receive, send)
            return
        scope.setdefault("state", {})["caller"] = verdict
        scope["state"][STILL_ALLOWED] = partial(_is_still_allowed, scope)
        try:
            with shares_of(scope).requests.hold(holder_of(scope)), audit.acting(actor_of(scope, verdict)):
                await self._app(scope, receive, send)
        except HttpError as error:
            await problem_response(scope, error.fault)(scope, receive, send)

    async def _judge(self, scope: ASGIScope) -> Caller | Fault:
        found = await _authenticator(scope).authenticate(scope)
        if is_public(scope["path"]):
            if isinstance(found, Fault):
                return NOBODY
            return caller_of(found) if isinstance(found, Grant) else found
        if not isinstance(found, Grant):
            return found
        if not may(found.scope, scope["method"], scope["path"]):
            await self._note_refusal(scope, found)
        return await self._refusal_of(scope, found) or caller_of(found)

    async def _note_refusal(self, scope: ASGIScope, grant: Grant) -> None:
        """Write what a known key was refused into the audit trail, a few times a minute for each."""
        if self._noted.seconds_to_wait(grant.key_id, NOTED_REFUSALS_PER_MINUTE):
            return
        what = f"{scope['method']} {scope['path']}"
        actor = actor_of(scope, caller_of(grant))
        work = partial(
            audit.record, scope["app"].state.backend, actor, grant.project_id, "access.refused", what, audit.REFUSED
        )
        try:
            await to_thread.run_sync(work, limiter=self._writes)
        except Unavailable as error:
            log.warning("refusal_not_recorded", key_id=grant.key_id, what=what, reason=error.detail)

    async def _refusal_of(self, scope: ASGIScope, grant: Grant) -> Fault | None:
        if not may(grant.scope, scope["method"], scope["path"]):
            needed = needed_scope(scope["method"], scope["path"])
            challenge = f'Bearer realm="preftune", error="insufficient_scope", scope="{needed.value}"'
            detail = f"This key may {grant.scope.value}; the request needs the scope {needed.value}."
            return Fault(kind=SCOPE_MISSING, detail=detail, headers={"WWW-Authenticate": challenge})
        rate = grant.requests_per_minute
        if rate is None:
            return None
        seconds = await self._limits.seconds_to_wait(scope["app"].state.backend, grant.key_id, rate)
        if seconds == 0:
            return None
        detail = f"{rate} requests a minute are allowed with this key; ask again in {seconds} s."
        return Fault(kind=RATE_LIMITED, detail=detail, headers={"Retry-After": str(seconds)})


async def _is_still_allowed(scope: ASGIScope) -> bool:
    try:
        return not isinstance(await _authenticator(scope).authenticate(scope, is_counted=False), Fault)
    except HttpError:
        return False


def _authenticator(scope: ASGIScope) -> Authenticator:
    authenticator: Authenticator = scope["app"].state.authenticator
    return authenticator
