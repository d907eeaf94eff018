"""`/jobs/{id}/checkpoints`: the kept checkpoints, each with a policy that can be loaded."""

from typing import Annotated

from fastapi import APIRouter, Path
from starlette.responses import Response

from api.deps import NEEDS_KEY, BackendDep, CallerDep
from api.docs.openapi import binary, problems
from api.downloads import tar_response
from api.http.root_path import public_path
from api.http.strict_route import StrictRoute
from api.routes.artifacts import members_of
from api.routes.jobs import JobId
from api.schemas.job_records import Checkpoint, Checkpoints
from api.threads import Lane, in_lane
from core.services.jobs import checkpoint_policies
from core.services.views import CheckpointView

router = APIRouter(tags=["artifact"], route_class=StrictRoute, dependencies=NEEDS_KEY, responses=problems(404, 503))

CheckpointId = Annotated[str, Path(description="Id of a checkpoint of the job.", max_length=64)]


@router.get("/jobs/{job_id}/checkpoints")
def list_checkpoints(job_id: JobId, backend: BackendDep, caller: CallerDep) -> Checkpoints:
    """List the kept checkpoints with their validation values, the latest step first."""
    views = checkpoint_policies.list_checkpoints(backend, caller.project_id, job_id)
    return Checkpoints(data=[_shown(job_id, view) for view in views])


@router.get(
    "/jobs/{job_id}/checkpoints/{checkpoint_id}/archive",
    response_class=Response,
    responses=binary("One folder, named as job, stage and step.", "application/x-tar"),
)
@in_lane(Lane.STORE)
def get_checkpoint_archive(
    job_id: JobId, checkpoint_id: CheckpointId, backend: BackendDep, caller: CallerDep
) -> Response:
    """Download the policy at that step as a tar stream. It loads as the artifact does; `SHA256SUMS` is included."""
    archive = checkpoint_policies.find_archive(backend, caller.project_id, job_id, checkpoint_id)
    return tar_response(archive.name, members_of(backend, job_id, archive.files), archive.created_at)


def _shown(job_id: str, view: CheckpointView) -> Checkpoint:
    url = public_path(f"/jobs/{job_id}/checkpoints/{view.id}/archive") if view.has_archive else None
    return Checkpoint(
        id=view.id,
        stage=view.stage,
        step=view.step,
        num_bytes=view.num_bytes,
        is_best=view.is_best,
        is_resumable=view.is_resumable,
        archive_url=url,
        metrics=view.metrics,
        created_at=view.created_at,
    )
