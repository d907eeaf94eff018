"""Models that answer: base models, policies of jobs and of their checkpoints, and the policy before DPO."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from core.base_models.directory import get_base_model
from core.database.repositories import jobs as job_rows
from core.database.repositories import objects
from core.database.tables.jobs import Job
from core.domain.errors import DomainError, FieldError, InvalidRequest, NotFound
from core.domain.jobs.job_state import Stage
from core.domain.jobs.methods import method_of
from core.domain.jobs.stored_files import StoredTree
from core.domain.policy_names import SFT_SUFFIX, parse_model_name
from core.domain.variants.checks import get_variant
from core.services.backend import Backend
from core.services.base_models import starting_points
from core.services.jobs.sft_policies import find_sft_policy


class ModelNotFound(NotFound):
    code = "model-not-found"
    title = "There is no such model"


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """A model as a runner needs to know it: where its files are, and how it computes."""

    name: str
    """Name that was asked for."""
    base_name: str | None
    """Folder of the models directory that it stems from; None: `base_tree`."""
    base_tree: StoredTree | None = None
    """Policy of an earlier job that the job started from; where `base_name` is None as well, it is not kept."""
    policy: StoredTree | None = None
    """What the job trained; None: the base model itself."""
    is_adapter_root: bool = False
    """The policy's folder is an adapter itself; else an adapter is in its `adapter/`."""
    has_lora: bool = False
    """The policy was trained as an adapter, which is applied as it is: merged weights are rounded."""
    is_sft: bool = False
    """It is the policy of a job before its DPO stage."""
    precision: str = "auto"
    """`fp32`, `bf16` or `auto`: what the job trained in; a runner decides on `auto`."""
    root_name: str
    """Base model at the root, whose tokenizer and chat template all that stems from it has."""
    job_id: str | None = None
    template_kwargs: tuple[tuple[str, Any], ...] = ()
    rendered_at: datetime | None = None
    """Time that the chat template sees; None: now."""


def find(backend: Backend, project_id: str, name: str) -> ServedModel:
    """Return what a name means: a base model, `job_…`, `job_…@<checkpoint id>`, `job_…@sft` or `ft:…`.

    Raises ModelNotFound with a pointer to `/model`, Unavailable.
    """
    try:
        if not starting_points.is_job_reference(name):
            model = get_base_model(backend.settings.models_dir, name)
            return ServedModel(name=name, base_name=model.name, root_name=model.name)
        if name.endswith(SFT_SUFFIX):
            return _find_sft(backend, project_id, name)
        return backend.database.write(lambda session: _find_policy(session, project_id, name))
    except DomainError as error:
        if error.kind not in ("invalid", "not_found"):
            raise
        detail = f"{error.detail.rstrip('.')}. GET /v1/models lists what there is."
        raise ModelNotFound(detail, errors=[FieldError("/model", detail)]) from error


def require_all(backend: Backend, project_id: str, names: Sequence[str]) -> None:
    """Check that all models are there. Raises InvalidRequest naming those that are not, Unavailable."""
    errors = []
    for position, name in enumerate(names):
        try:
            find(backend, project_id, name)
        except DomainError as error:
            if error.kind == "unavailable":
                raise
            errors.append(FieldError(f"/models/{position}", error.detail))
    if errors:
        raise InvalidRequest("; ".join(f"{error.pointer}: {error.detail}" for error in errors), errors=errors)


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What the implicit rewards of a policy are measured against."""

    model: ServedModel
    beta: float | None
    """Factor of the log-ratio; None where the job's variant rewards without a reference."""


def reference_of(backend: Backend, project_id: str, model: ServedModel) -> Reference | None:
    """Return what a job's policy is measured against: its SFT policy, or what it started from; None for a base model.

    Raises ModelNotFound where the policy before DPO is not kept.
    """
    if model.job_id is None:
        return None
    job = backend.database.read(lambda session: job_rows.find_job(session, project_id, str(model.job_id)))
    if job is None:
        raise ModelNotFound(f"there is no job {model.job_id}")
    if not method_of(job.spec).has_rewards or not get_variant(job.spec["variant"]).needs_reference:
        return Reference(model=start_of(model), beta=None)
    beta = float(job.spec["beta"]) if job.spec.get("beta") is not None else None
    if job.spec["sft"] == "skip" or model.is_sft:
        return Reference(model=start_of(model), beta=None if model.is_sft else beta)
    return Reference(model=find(backend, project_id, model.job_id + SFT_SUFFIX), beta=beta)


def start_of(model: ServedModel) -> ServedModel:
    """Return what a job's policy was trained from. Raises ModelNotFound where that is not kept."""
    if model.base_name is None and model.base_tree is None:
        detail = f"The policy that {model.job_id} started from is deleted, so {model.name} has no reference any more."
        raise ModelNotFound(detail, errors=[FieldError("/reference", detail)])
    if model.base_tree is None:
        started = replace(model, name=model.root_name, policy=None)
    else:
        started = replace(model, name="", base_tree=None, policy=model.base_tree)
    return replace(started, has_lora=False, is_adapter_root=False, is_sft=False, job_id=None)


def _find_policy(session: Session, project_id: str, name: str) -> ServedModel:
    point = starting_points.find_policy(session, project_id, name)
    job = job_rows.find_job(session, project_id, str(point.job_id))
    assert job is not None
    return replace(_of_job(session, job, name), policy=point.tree)


def _of_job(session: Session, job: Job, name: str) -> ServedModel:
    """Return the model of a job without its policy."""
    started_from = str(job.spec["base_model"])
    is_policy = starting_points.is_job_reference(started_from)
    tree = None
    try:
        tree = starting_points.find_policy(session, job.project_id, started_from).tree if is_policy else None
    except InvalidRequest:
        if job.spec.get("lora"):  # else its policy is whole
            raise
    return ServedModel(
        name=name,
        base_name=None if is_policy else started_from,
        base_tree=tree,
        has_lora=bool(job.spec.get("lora")),
        precision=job.spec.get("precision", "auto"),
        root_name=str(job.base_model_facts["name"]),
        job_id=job.id,
        template_kwargs=tuple(sorted((job.spec.get("chat_template_kwargs") or {}).items())),
        rendered_at=job.created_at,
    )


def _find_sft(backend: Backend, project_id: str, name: str) -> ServedModel:
    """Return the policy before DPO. Raises InvalidRequest where there is none or it is not kept."""
    named = parse_model_name(name)
    if named is None:
        raise InvalidRequest(
            f"{name} is not a policy's name; they are job_…@sft or ft:<base>:<project>:<suffix>:<id>@sft"
        )
    job_id = named.job_id

    def read(session: Session) -> tuple[Job, ServedModel, StoredTree]:
        job = job_rows.find_job(session, project_id, job_id)
        if job is None:
            raise InvalidRequest(f"there is no job {job_id}")
        if not method_of(job.spec).has(Stage.REFERENCE):
            raise InvalidRequest(f"{job_id} is a {job.spec['method']} job, which has no policy before DPO")
        if job.spec["sft"] == "skip":
            raise InvalidRequest(f"{job_id} trained no SFT policy: it started from {job.spec['base_model']}")
        artifact = objects.find_artifact(session, job_id)
        if artifact is None:
            raise InvalidRequest(f"{job_id} is {job.status.value} and has published no policy")
        return job, _of_job(session, job, name), artifact.tree

    job, model, published = backend.database.write(read)
    tree = find_sft_policy(backend, job, published)
    if tree is None:
        raise InvalidRequest(f"the SFT policy of {job_id} is not kept: its job was sent with reuse: false, or is gone")
    return replace(model, policy=tree, is_adapter_root=model.has_lora, is_sft=True)
