"""`/v1/models`: base models and tuned policies."""

from typing import Annotated

from fastapi import APIRouter, Path

from api.deps import NEEDS_KEY, BackendDep, CallerDep
from api.http.strict_route import StrictRoute
from api.openai.files import seconds
from api.openai.objects import Deleted, ListPage, Model
from core.domain.errors import Conflict, InvalidRequest, NotFound
from core.domain.policy_names import parse_policy_name, policy_name
from core.services.backend import Backend
from core.services.base_models import starting_points
from core.services.chat.served_models import ModelNotFound
from core.services.jobs import artifacts, jobs
from core.services.views import BaseModelView, JobView

MAX_LISTED = 1000
ModelName = Annotated[str, Path(description="Name of a base model or of a policy.", max_length=512)]

router = APIRouter(route_class=StrictRoute, dependencies=NEEDS_KEY)


class BaseModelNotDeletable(Conflict):
    code = "base-model-not-deletable"
    title = "A base model belongs to the operator"


class CheckpointNotDeletable(Conflict):
    code = "checkpoint-not-deletable"
    title = "A checkpoint is not deleted by itself"


@router.get("/v1/models")
def list_models(backend: BackendDep, caller: CallerDep) -> ListPage[Model]:
    """The base models, then the newest policies; the first thousand."""
    page = starting_points.list_models(backend, caller.project_id, limit=MAX_LISTED)
    return ListPage[Model].of([_shown(caller.project_id, view) for view in page.data], has_more=False)


@router.get("/v1/models/{model:path}")
def get_model(model: ModelName, backend: BackendDep, caller: CallerDep) -> Model:
    """One base model or policy; the name of a checkpoint's policy is one, too."""
    if not starting_points.is_job_reference(model):
        found = starting_points.list_models(backend, caller.project_id, limit=MAX_LISTED).data
        if any(view.name == model and view.job_id is None for view in found):
            return Model(id=model, created=0, owned_by="operator")
        raise ModelNotFound(f"There is no model {model}; GET /v1/models lists them.")
    job = _job(backend, caller.project_id, model)
    return Model(id=model, created=seconds(job.finished_at or job.created_at), owned_by=caller.project_id)


@router.delete("/v1/models/{model:path}")
def delete_model(model: ModelName, backend: BackendDep, caller: CallerDep) -> Deleted:
    """Delete what a job published and its checkpoints; the job, its curves and events stay."""
    if not starting_points.is_job_reference(model):
        raise BaseModelNotDeletable("Base models are the operator's; only tuned policies can be deleted.")
    named = parse_policy_name(model)
    if "@" in model or (named is not None and named.step is not None):
        raise CheckpointNotDeletable("Checkpoints go with the policy of their job; delete that.")
    job = _job(backend, caller.project_id, model)
    artifacts.delete(backend, caller.project_id, job.id)
    return Deleted(id=model, object="model")


def _shown(project_id: str, view: BaseModelView) -> Model:
    if view.job_id is None:
        return Model(id=view.name, created=0, owned_by="operator")
    name = policy_name(view.source or "", project_id, view.job_name, view.job_id)
    return Model(id=name, created=seconds(view.published_at) if view.published_at else 0, owned_by=project_id)


def _job(backend: Backend, project_id: str, model: str) -> JobView:
    """The job of a policy that is there. Raises ModelNotFound."""
    try:
        return jobs.get(backend, project_id, starting_points.require_policy(backend, project_id, model))
    except (NotFound, InvalidRequest) as error:
        raise ModelNotFound(f"There is no model {model}: {error.detail}.") from error
