"""Route of `/audit`: who did what, newest first."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, BeforeValidator

from api.deps import DEFAULT_LIMIT, NEEDS_KEY, BackendDep, CallerDep, Cursor, Limit
from api.docs.openapi import problems
from api.http.strict_route import StrictRoute
from api.schemas.audit import AuditEvent
from api.schemas.base import Page
from core.domain.access import Scope
from core.services.access import audit
from core.services.access.audit import AuditFilter

router = APIRouter(tags=["access"], route_class=StrictRoute, dependencies=NEEDS_KEY)

MAX_CHARS = 255


def _refuse_number(value: object) -> object:
    """A number would be read as seconds since 1970."""
    if isinstance(value, str) and "-" not in value[1:]:
        raise ValueError("must be a time as RFC 3339 writes it, such as 2026-01-31T12:00:00Z")
    return value


_Time = Annotated[AwareDatetime, BeforeValidator(_refuse_number)]
_Filter = Annotated[str | None, Query(max_length=MAX_CHARS)]
Action = Annotated[_Filter, Query(description="Only this action, such as `job.submit`.")]
Who = Annotated[_Filter, Query(description="Only acts of this key's id, user or `operator:<user>`.")]
Key = Annotated[_Filter, Query(description="Only acts with this key.")]
Object = Annotated[_Filter, Query(description="Only acts on this object.")]
Outcome = Annotated[_Filter, Query(description="`done` or `refused`.")]
Project = Annotated[_Filter, Query(description="Only of this project; others than its own are for operators.")]
Since = Annotated[_Time | None, Query(description="Not before this time (RFC 3339).")]
Until = Annotated[_Time | None, Query(description="Before this time (RFC 3339).")]


@router.get("/audit", responses=problems(422, 503))
def list_audit_events(
    backend: BackendDep,
    caller: CallerDep,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    *,
    action: Action = None,
    actor: Who = None,
    key_id: Key = None,
    object_id: Object = None,
    outcome: Outcome = None,
    project_id: Project = None,
    since: Since = None,
    until: Until = None,
) -> Page[AuditEvent]:
    """Who did what, newest first: of the caller's project, for operators of all."""
    if not caller.scope.includes(Scope.OPERATOR):
        if project_id not in (None, caller.project_id):
            return Page[AuditEvent](data=[], next_cursor=None)
        project_id = caller.project_id
    where = AuditFilter(
        project_id=project_id,
        action=action,
        actor=actor,
        key_id=key_id,
        object_id=object_id,
        outcome=outcome,
        since=since,
        until=until,
    )
    return Page[AuditEvent].model_validate(audit.list_page(backend, where, limit=limit, cursor=cursor))
