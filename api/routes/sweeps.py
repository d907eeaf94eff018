"""`/sweeps`: many jobs that differ in a few settings, as one."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from api.deps import DEFAULT_LIMIT, NEEDS_KEY, BackendDep, CallerDep, Cursor, IdempotencyKey, Limit
from api.docs.openapi import problems
from api.http.idempotent import Created, answer_once, creating
from api.http.strict_route import StrictRoute
from api.schemas.base import Page
from api.schemas.job_records import Events
from api.schemas.sweeps import Sweep, SweepPreview
from api.steering import answer_change, steered
from api.threads import Lane, in_lane
from core.domain.sweeps import SweepExtension, SweepRequest, SweepStatus
from core.services.sweeps import events, previews, progress, sweeps

SweepId = Annotated[str, Path(description="Id of a sweep.", max_length=64)]
ACCEPTED = "Accepted; the members follow."
STEERED = steered(Sweep, ACCEPTED)
EXTENDED = steered(
    Sweep, ACCEPTED, already="It has these members already.", failures=problems(400, 404, 409, 413, 415, 422, 503)
)
MAX_EVENTS = 200

router = APIRouter(tags=["sweeps"], route_class=StrictRoute, dependencies=NEEDS_KEY)


@router.post(
    "/sweeps",
    status_code=201,
    response_model=Sweep,
    response_description="Recorded; its jobs are queued. `Location` names it.",
    responses=problems(400, 409, 413, 415, 422, 503),
)
@in_lane(Lane.PREVIEWS)
def create_sweep(
    body: SweepRequest, request: Request, backend: BackendDep, caller: CallerDep, key: IdempotencyKey = None
) -> Response:
    """Run a job once for each combination of settings. Members share staging, SFT and reference where they can."""

    def create(sweep_id: str | None) -> Created:
        view = sweeps.create(backend, caller.project_id, body, sweep_id=sweep_id)
        progress.advance(backend, view.id)
        shown = Sweep.model_validate(sweeps.get(backend, caller.project_id, view.id))
        return Created(body=shown, headers={"Location": f"/sweeps/{view.id}"})

    return answer_once(backend, creating(request, caller.project_id, key), "sweep", create)


@router.post("/sweeps/preview", responses=problems(400, 413, 415, 422, 503))
@in_lane(Lane.PREVIEWS)
def preview_sweep(body: SweepRequest, backend: BackendDep, caller: CallerDep) -> SweepPreview:
    """Check a sweep and show its jobs and what they would take together, without queuing any."""
    return SweepPreview.model_validate(previews.preview(backend, caller.project_id, body))


@router.get("/sweeps", responses=problems(422, 503))
def list_sweeps(
    backend: BackendDep, caller: CallerDep, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> Page[Sweep]:
    """List the sweeps, newest first."""
    page = sweeps.list_page(backend, caller.project_id, limit=limit, cursor=cursor)
    return Page[Sweep].model_validate(page)


@router.get("/sweeps/{sweep_id}", responses=problems(404, 503))
def get_sweep(sweep_id: SweepId, backend: BackendDep, caller: CallerDep) -> Sweep:
    """Return one sweep with its members and the best of them so far."""
    return Sweep.model_validate(sweeps.get(backend, caller.project_id, sweep_id))


@router.get("/sweeps/{sweep_id}/events", responses=problems(404, 422, 503))
def list_sweep_events(
    sweep_id: SweepId,
    backend: BackendDep,
    caller: CallerDep,
    after: Annotated[int, Query(ge=0, le=2**31 - 1, description="`seq` of the last event already known.")] = 0,
    limit: Annotated[int, Query(ge=1, le=MAX_EVENTS, description="Events of a page.")] = MAX_EVENTS,
) -> Events:
    """List what happened to a sweep and what was decided at its rungs, oldest first."""
    found = events.list_events(backend, caller.project_id, sweep_id, after=after, limit=limit + 1)
    shown = found[:limit]
    last_seq = shown[-1].seq if shown else after
    return Events.model_validate({"data": shown, "last_seq": last_seq, "has_more": len(found) > limit})


@router.post("/sweeps/{sweep_id}/cancel", **STEERED)
def cancel_sweep(sweep_id: SweepId, backend: BackendDep, caller: CallerDep) -> Response:
    """Cancel the sweep and all members that have not ended."""
    return _steered(backend, caller, sweep_id, SweepStatus.CANCELLED)


@router.post("/sweeps/{sweep_id}/pause", **STEERED)
def pause_sweep(sweep_id: SweepId, backend: BackendDep, caller: CallerDep) -> Response:
    """Pause all members at a checkpoint each, and queue no further ones."""
    return _steered(backend, caller, sweep_id, SweepStatus.PAUSED)


@router.post("/sweeps/{sweep_id}/resume", **STEERED)
def resume_sweep(sweep_id: SweepId, backend: BackendDep, caller: CallerDep) -> Response:
    """Resume a paused sweep with the members that it had paused."""
    return _steered(backend, caller, sweep_id, SweepStatus.RUNNING)


@router.post("/sweeps/{sweep_id}/extend", **EXTENDED)
@in_lane(Lane.PREVIEWS)
def extend_sweep(sweep_id: SweepId, body: SweepExtension, backend: BackendDep, caller: CallerDep) -> Response:
    """Add members to a sweep; one that is finished goes on. A member that it has already is not added again."""
    view, is_changed = sweeps.extend(backend, caller.project_id, sweep_id, body.members)
    progress.advance(backend, sweep_id)
    return answer_change(Sweep, sweeps.get(backend, caller.project_id, view.id), is_changed)


@router.delete("/sweeps/{sweep_id}", status_code=204, responses=problems(404, 409, 503))
def delete_sweep(sweep_id: SweepId, backend: BackendDep, caller: CallerDep) -> None:
    """Delete the record of a sweep that has ended; its jobs stay."""
    sweeps.delete(backend, caller.project_id, sweep_id)


def _steered(backend: BackendDep, caller: CallerDep, sweep_id: str, status: SweepStatus) -> Response:
    view, is_changed = sweeps.set_status(backend, caller.project_id, sweep_id, status)
    if is_changed:
        progress.advance(backend, sweep_id)
    return answer_change(Sweep, sweeps.get(backend, caller.project_id, view.id), is_changed)
