"""Models that jobs may start from: base models of the models directory, and policies of earlier jobs."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from core.base_models.directory import get_base_model, list_base_models
from core.database.repositories import jobs as job_rows
from core.database.repositories import objects
from core.database.tables.jobs import Job
from core.domain.errors import InvalidRequest
from core.domain.jobs.job_state import FINAL_STATUSES
from core.domain.jobs.methods import method_of
from core.domain.jobs.stored_files import StoredTree
from core.domain.policy_names import PREFIX, parse_model_name
from core.services.backend import Backend
from core.services.cursors import decode_cursor, encode_cursor
from core.services.views import BaseModelView, Page

_JOB = "job_"


@dataclass(frozen=True, kw_only=True)
class StartingPoint:
    """A base model, or a policy that a job trained."""

    num_parameters: int
    facts: dict[str, Any]
    """`name`, `architecture`, `context_length`, `has_position_table`, `source` and `revision` of the base model at the
    root; jobs of earlier versions lack `has_position_table`."""
    job_id: str | None = None
    tree: StoredTree | None = None
    """Where the tuned policy's files are."""


def is_job_reference(name: str) -> bool:
    """Tell whether the name means a tuned policy: `job_…`, `job_…@<checkpoint id>` or `ft:…`."""
    return name.startswith((_JOB, PREFIX))


def find_folder(backend: Backend, name: str) -> StartingPoint:
    """Return a base model of the models directory. Raises what `core.base_models` raises."""
    model = get_base_model(backend.settings.models_dir, name)
    facts = {
        "name": model.name,
        "architecture": model.architecture,
        "context_length": model.context_length,
        "has_position_table": model.has_position_table,
        "source": model.source,
        "revision": model.revision,
        "licence": model.licence,
    }
    return StartingPoint(num_parameters=model.num_parameters, facts=facts)


def find_policy(session: Session, project_id: str, reference: str) -> StartingPoint:
    """Find the policy that `is_job_reference` names. Raises InvalidRequest when that job has no such policy.

    A reward model is none: it has no LM head, so nothing is trained from it and it answers nothing.
    """
    job_id, checkpoint_id = _parts(session, project_id, reference)
    job = job_rows.lock_job(session, job_id, project_id)
    if job is None:
        raise InvalidRequest(f"there is no job {job_id}")
    if not method_of(job.spec).publishes_policy:
        raise InvalidRequest(
            f"{job_id} is a job of the method {job.spec['method']}: what it publishes is no policy. Name what it "
            f"started from, {job.spec['base_model']}, to train from that"
        )
    if job.status not in FINAL_STATUSES:
        raise InvalidRequest(f"{job_id} is {job.status.value}; wait until it has finished")
    if checkpoint_id:
        checkpoint = objects.find_policy(session, job_id, checkpoint_id)
        tree = checkpoint.policy_tree if checkpoint else None
        if tree is None:
            raise InvalidRequest(f"{job_id} has no policy of a checkpoint {checkpoint_id}; it may have been deleted")
    else:
        artifact = objects.find_artifact(session, job_id)
        if artifact is None:
            raise InvalidRequest(f"{job_id} ended as {job.status.value} and published no policy")
        tree = artifact.tree
    return StartingPoint(
        num_parameters=int(job.spec["num_parameters"]), facts=job.base_model_facts, job_id=job_id, tree=tree
    )


def _parts(session: Session, project_id: str, reference: str) -> tuple[str, str]:
    """Return the ids of job and checkpoint (or "") that a reference names. Raises InvalidRequest."""
    named = parse_model_name(reference)
    if named is not None and named.is_sft:
        raise InvalidRequest(
            f"{reference} is the policy of a job before DPO, which answers but trains no further; name the job itself"
        )
    if named is None:
        raise InvalidRequest(f"{reference} is not a policy's name; they are ft:<base>:<project>:<suffix>:<id>")
    if named.step is None:
        return named.job_id, named.checkpoint_id or ""
    job = job_rows.find_job(session, project_id, named.job_id)
    if job is None:
        raise InvalidRequest(f"there is no job {named.job_id}")
    stage = method_of(job.spec).last
    for checkpoint in objects.list_policies(session, named.job_id):
        if checkpoint.stage is stage and checkpoint.step == named.step:
            return named.job_id, checkpoint.id
    raise InvalidRequest(f"{named.job_id} keeps no policy of step {named.step}; it may have been deleted")


def require_policy(backend: Backend, project_id: str, reference: str) -> str:
    """Return the id of the job whose policy a reference names. Raises InvalidRequest where it is not there."""
    return backend.database.write(lambda session: find_policy(session, project_id, reference).job_id or "")


def list_models(backend: Backend, project_id: str, *, limit: int, cursor: str | None = None) -> Page[BaseModelView]:
    """Return base models by name, then tuned policies, the newest first."""
    position = decode_cursor(cursor) if cursor else ""
    views: list[BaseModelView] = []
    if not position.startswith(_JOB):
        folders = list_base_models(backend.settings.models_dir)
        views = [
            BaseModelView(
                name=model.name,
                kind="base",
                architecture=model.architecture,
                num_parameters=model.num_parameters,
                context_length=model.context_length,
                source=model.source,
                revision=model.revision,
                job_id=None,
            )
            for model in folders
            if model.name > position
        ][: limit + 1]
    if len(views) <= limit:
        before = position if position.startswith(_JOB) else None
        views += _list_policies(backend, project_id, before, limit + 1 - len(views))
    is_more = len(views) > limit
    return Page(data=views[:limit], next_cursor=encode_cursor(views[limit - 1].name) if is_more else None)


def _list_policies(backend: Backend, project_id: str, before: str | None, limit: int) -> list[BaseModelView]:
    jobs = backend.database.read(lambda session: objects.list_published_jobs(session, project_id, before, limit))
    return [_view_policy(job) for job in jobs]


def _view_policy(job: Job) -> BaseModelView:
    facts = job.base_model_facts
    return BaseModelView(
        name=job.id,
        kind="tuned",
        architecture=facts["architecture"],
        num_parameters=int(job.spec["num_parameters"]),
        context_length=facts["context_length"],
        source=facts["name"],
        revision=facts["revision"],
        job_id=job.id,
        job_name=job.name,
        published_at=job.finished_at,
    )
