"""Routes of `/workers` and `/storage`: who works on what, and who stores what, for admins and operators."""

from fastapi import APIRouter

from api.deps import DEFAULT_LIMIT, NEEDS_KEY, BackendDep, CallerDep, Cursor, Limit
from api.docs.openapi import problems
from api.http.strict_route import StrictRoute
from api.schemas.operations import Storage, Workers
from core.domain.access import Scope
from core.services.operations import roster, storage_use

router = APIRouter(tags=["access"], route_class=StrictRoute, dependencies=NEEDS_KEY)


@router.get("/workers", responses=problems(503))
def list_workers(backend: BackendDep, caller: CallerDep) -> Workers:
    """List workers and API processes with devices, clocks and disks, what they train, and the queue of every project.

    Admins of a project are told their own jobs and queue, and of the machines only that they are there.
    """
    found = roster.read_roster(backend)
    if not caller.scope.includes(Scope.OPERATOR):
        found = roster.seen_by(found, caller.project_id)
    return Workers.model_validate({"data": found.processes, "next_cursor": None, "queue": found.queue})


@router.get("/storage", responses=problems(422, 503))
def list_storage(
    backend: BackendDep, caller: CallerDep, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> Storage:
    """List what projects store, by id: for operators all, for admins their own."""
    is_operator = caller.scope.includes(Scope.OPERATOR)
    page = storage_use.list_storage(backend, None if is_operator else caller.project_id, limit=limit, cursor=cursor)
    lost = storage_use.count_lost_objects(backend) if is_operator else None
    return Storage.model_validate({"data": page.data, "next_cursor": page.next_cursor, "num_lost_objects": lost})
