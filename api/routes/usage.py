"""Route of `/usage`: what the caller's project stores, and its limits."""

from fastapi import APIRouter

from api.deps import NEEDS_KEY, BackendDep, CallerDep
from api.docs.openapi import problems
from api.http.strict_route import StrictRoute
from api.schemas.usage import Disk, Usage
from core.domain.access import Scope
from core.services.access import quotas

router = APIRouter(tags=["access"], route_class=StrictRoute, dependencies=NEEDS_KEY)


@router.get("/usage", response_model_exclude_unset=True, responses=problems(503))
def get_usage(backend: BackendDep, caller: CallerDep) -> Usage:
    """What the project stores, by what takes it, and its limits. Operators are told the service's disks."""
    found = quotas.get_usage(backend, caller.project_id)
    usage = Usage.model_validate(found)
    if caller.scope.includes(Scope.OPERATOR):
        usage.disks = [Disk.model_validate(room) for room in found.room]
    return usage
