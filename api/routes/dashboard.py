"""The dashboard under `/ui/`: its files and its sign-in. All data it shows come from the API."""

import re
from typing import Annotated

import structlog
from anyio import to_thread
from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from api.access import sessions
from api.access.authentication import address_of, throttled
from api.access.callers import LOCAL_USER, NOBODY, actor_of, caller_of
from api.access.failures import FailureThrottle
from api.access.key_ring import KeyRing
from api.dashboard_files import dashboard_files
from api.deps import BackendDep, CallerDep
from api.http.problems import API_KEY_INVALID, FOREIGN_ORIGIN, HttpError
from api.http.strict_route import StrictRoute, is_none_match
from api.schemas.base import Answer
from api.telemetry import AuthFailures
from core.domain.access import Scope
from core.services.access import browser_sessions
from core.services.access.api_keys import Grant

PAGE_POLICY = (
    "default-src 'self'; style-src 'self' {style_source}; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
"""No inline script, no inline style but the start page's own, nothing from elsewhere, no text that is read as HTML."""
FOR_GOOD = "public, max-age=31536000, immutable"

_PAGE = re.compile(r"[a-z]+(?:/[\w-]+)*", re.ASCII)

log = structlog.get_logger("api")
router = APIRouter(include_in_schema=False, route_class=StrictRoute)


class SignIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    api_key: str = Field(min_length=1, max_length=4096)


class SessionState(Answer):
    needs_key: bool
    is_signed_in: bool
    scope: Scope | None
    """Scope of whoever is signed in."""


@router.get("/")
@router.get("/ui")
def redirect_to_dashboard() -> Response:
    return RedirectResponse("/ui/", status_code=307)


@router.get("/ui/session")
async def get_session(request: Request, caller: CallerDep) -> SessionState:
    needs_key = caller is not LOCAL_USER
    is_signed_in = caller.key_id is not None
    return SessionState(needs_key=needs_key, is_signed_in=is_signed_in, scope=caller.scope if is_signed_in else None)


@router.post("/ui/session")
async def create_session(body: SignIn, request: Request, caller: CallerDep) -> Response:
    _refuse_foreign_pages(request)
    response = Response(status_code=204)
    if caller is LOCAL_USER:
        return response
    ring: KeyRing = request.app.state.key_ring
    grant = await _redeem(request, ring, body.api_key.strip().encode())
    is_secure = sessions.is_over_https(request.headers, request.scope["scheme"])
    sessions.sign_in(response, sessions.issue(ring, grant, is_secure=is_secure), is_secure=is_secure)
    return response


@router.delete("/ui/session")
async def delete_session(request: Request, backend: BackendDep) -> Response:
    """Sign out: the session ends on the server, for every copy of its cookie."""
    _refuse_foreign_pages(request)
    ring: KeyRing = request.app.state.key_ring
    found = await sessions.find_session(ring, request.headers, request.scope["scheme"])
    if found is not None:
        await to_thread.run_sync(browser_sessions.end, backend, found.grant, found.id, found.seconds)
        ring.note_session(found.id, is_ended=True)
    response = Response(status_code=204)
    sessions.sign_out(response)
    return response


async def _redeem(request: Request, ring: KeyRing, shown: bytes) -> Grant:
    """Return the rights of the key. Raises HttpError: 401, or 429 for whoever tries too often, right or wrong."""
    throttle: FailureThrottle = request.app.state.sign_ins
    failures: AuthFailures = request.app.state.telemetry.auth_failures
    address = address_of(request.scope)
    seconds = throttle.seconds_to_wait(address)
    if seconds:
        failures.note("sign_in_throttled")
        log.warning("sign_in_throttled", client=address)
        raise HttpError.of(throttled(seconds))
    grant = await ring.redeem(shown)
    actor = actor_of(request.scope, caller_of(grant) if grant else NOBODY)
    await to_thread.run_sync(browser_sessions.record_sign_in, request.app.state.backend, actor, grant)
    if grant is None:
        failures.note("sign_in")
        log.warning("sign_in_refused", client=address)
        raise HttpError(API_KEY_INVALID, "The service does not know this key.")
    throttle.give_back(address)
    return grant


@router.get("/ui/{path:path}")
async def get_web_file(path: Annotated[str, Path(max_length=256)], request: Request) -> Response:
    """Return a file of the dashboard. A page's address without the `#`, as people type it, leads to the page."""
    found = dashboard_files()
    file = found.find(path)
    if file is None:
        if _PAGE.fullmatch(path) and "text/html" in request.headers.get("accept", ""):
            return RedirectResponse(f"/ui/#/{path}", status_code=307)
        raise HTTPException(404)
    headers = {"ETag": file.etag, "Content-Security-Policy": PAGE_POLICY.format(style_source=found.style_source)}
    if found.is_lasting(path):
        headers["Cache-Control"] = FOR_GOOD
    if is_none_match(request, file.etag):
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers=headers, media_type=file.media_type)


def _refuse_foreign_pages(request: Request) -> None:
    if not sessions.is_own_origin(request.headers):
        raise HttpError(FOREIGN_ORIGIN, sessions.foreign_page_detail(request.headers))
