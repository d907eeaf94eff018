"""Callers of the API: whose things a request is about, and the scope that each address of the API needs."""

import re
from dataclasses import dataclass

from starlette.types import Scope as ASGIScope

from api.access.key_ring import LOCAL
from core.domain.access import DEFAULT_PROJECT_ID, Scope
from core.services.access.api_keys import Grant
from core.services.access.audit import Actor

_DOCUMENTS = {"/", "/docs", "/docs.css", "/docs.js", "/openapi.json", "/v1/openapi.json"}
PUBLIC_PATHS = frozenset({*_DOCUMENTS, "/health/live", "/health/ready", "/health/echo"})
"""Open to those without a key: they tell nothing about jobs and data."""
LIVENESS_PATH = "/health/live"
"""Answered without a look at anything."""
PUBLIC_PREFIXES = ("/ui/",)
"""The dashboard's own files, and signing in."""
OPERATOR_PATHS = frozenset({"/metrics"})
"""They tell of all projects together."""
ADMIN_PATHS = ("/keys", "/audit", "/workers", "/storage")
"""Paths that need the scope `admin`, with all below them."""
WRITERS_PATHS = re.compile(r".*/jobs/[^/]+/log/?")
"""Read by those who may write: what trainings print may quote the data."""
USERS_POSTS = re.compile(r"/v1/(chat/)?completions|/jobs/[^/]+/scores|/feedback")
"""What is posted there needs the scope `use` only."""
USERS_READS = re.compile(r"/jobs/[^/]+/scores/[^/]+|/v1/models(/.+)?")
"""Read also with the scope `use`: scores that were asked for, and names of models to ask."""
READING = ("GET", "HEAD")


@dataclass(frozen=True)
class Caller:
    """Project of a request, and its rights."""

    project_id: str
    key_id: str | None = None
    """None: nobody has shown one. `user:<name>` for a name that a trusted proxy vouches for."""
    scope: Scope = Scope.OPERATOR
    max_upload_bytes: int | None = None
    """Limit of one file; None: the service's."""
    user: str | None = None
    """Name that a trusted proxy vouches for."""
    keeps_answers: bool = False
    """Whether the key lets served answers be kept."""

    @property
    def name(self) -> str:
        return self.user or self.key_id or "nobody"

    @property
    def may_keep_answers(self) -> bool:
        """True also for admins, who could make themselves such a key."""
        return self.keeps_answers or self.scope.includes(Scope.ADMIN)


LOCAL_USER = Caller(DEFAULT_PROJECT_ID, LOCAL.key_id)
"""Where there never was a key, the service's own user on this machine."""
NOBODY = Caller(DEFAULT_PROJECT_ID, scope=Scope.READ)
"""Who asks for what is public."""


def needed_scope(method: str, path: str) -> Scope:
    """Return the least scope that may; readings for users may be done with `use` as well."""
    if path in OPERATOR_PATHS:
        return Scope.OPERATOR
    if path.startswith(ADMIN_PATHS):
        return Scope.ADMIN
    if method == "POST" and USERS_POSTS.fullmatch(path):
        return Scope.USE
    return Scope.READ if method in READING and not WRITERS_PATHS.fullmatch(path) else Scope.WRITE


def is_read_by_users(method: str, path: str) -> bool:
    return method in READING and USERS_READS.fullmatch(path) is not None


def may(scope: Scope, method: str, path: str) -> bool:
    return scope.includes(needed_scope(method, path)) or (scope is Scope.USE and is_read_by_users(method, path))


def is_public(path: str) -> bool:
    return path in PUBLIC_PATHS or path.startswith(PUBLIC_PREFIXES)


def caller_of(grant: Grant) -> Caller:
    return Caller(grant.project_id, grant.key_id, grant.scope, grant.max_upload_bytes, grant.user, grant.keeps_answers)


def actor_of(scope: ASGIScope, caller: Caller) -> Actor:
    """Return the caller as the audit trail names it, with where the request comes from."""
    client = scope.get("client")
    return Actor(
        name=caller.name,
        key_id=None if caller.user else caller.key_id,
        address=client[0] if client else None,
        request_id=scope.get("state", {}).get("request_id"),
    )
