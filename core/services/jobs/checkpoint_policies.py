"""Policies of checkpoints, as users see and load them."""

import math
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from core.database.repositories import metrics, objects
from core.database.tables.jobs import Job
from core.database.tables.objects import Checkpoint, CheckpointStatus
from core.domain.errors import NotFound
from core.domain.jobs.job_state import Stage
from core.domain.jobs.methods import method_of
from core.domain.jobs.stored_files import StoredFile
from core.services.backend import Backend
from core.services.jobs import jobs
from core.services.jobs.stored_files import list_tree
from core.services.transactions import reads
from core.services.views import CheckpointView, from_row


class CheckpointNotFound(NotFound):
    code = "checkpoint-not-found"
    title = "There is no such checkpoint"


@dataclass(frozen=True, kw_only=True)
class PolicyArchive:
    """Downloadable policy of one checkpoint."""

    job_id: str
    name: str
    """Name of the folder."""
    files: list[StoredFile]
    created_at: datetime


@reads
def list_checkpoints(session: Session, project_id: str, job_id: str) -> list[CheckpointView]:
    """Return checkpoints with a policy or a state to resume from, the latest step first."""
    job = jobs.find(session, project_id, job_id)
    policies = objects.list_policies(session, job_id)
    known = {checkpoint.id for checkpoint in policies}
    only_state = [item for item in objects.list_checkpoints(session, job_id) if item.id not in known]
    values = validation_values(session, job_id, policies + only_state)
    best = find_best(job, policies, values)
    order = tuple(Stage)
    rows = sorted(policies + only_state, key=lambda row: (order.index(row.stage), row.step, row.attempt))
    return [_view(row, values.get((row.stage, row.step), {}), is_best=row is best) for row in reversed(rows)]


def find_archive(backend: Backend, project_id: str, job_id: str, checkpoint_id: str) -> PolicyArchive:
    """Return a checkpoint's policy. Raises CheckpointNotFound, ObjectDamaged."""
    row = _find_policy(backend, project_id, job_id, checkpoint_id)
    if row is None or row.policy_tree is None:
        raise CheckpointNotFound(f"{job_id} keeps no policy of a checkpoint {checkpoint_id}.")
    files = list_tree(backend, row.policy_tree)
    name = f"{job_id}-{row.stage.value}-{row.step}"
    return PolicyArchive(job_id=job_id, name=name, files=files, created_at=row.created_at)


@reads
def _find_policy(session: Session, project_id: str, job_id: str, checkpoint_id: str) -> Checkpoint | None:
    jobs.find(session, project_id, job_id)
    return objects.find_policy(session, job_id, checkpoint_id)


def validation_values(session: Session, job_id: str, checkpoints: list[Checkpoint]) -> metrics.ValuesByStep:
    return metrics.validation_values(session, job_id, {(item.stage, item.step) for item in checkpoints})


def find_best(job: Job, checkpoints: list[Checkpoint], values: metrics.ValuesByStep) -> Checkpoint | None:
    """Return the last stage's checkpoint that is best by `keep_best`, early stopping's metric, or the loss."""
    watched = (job.spec.get("early_stopping") or {}).get("metric", "loss")
    metric = job.spec.get("keep_best") or watched
    sign, stage = 1.0 if metric == "loss" else -1.0, method_of(job.spec).last

    def cost(checkpoint: Checkpoint) -> float:
        value = values.get((checkpoint.stage, checkpoint.step), {}).get(metric)
        return math.inf if value is None or checkpoint.stage is not stage else sign * value

    best = min(checkpoints, key=cost, default=None)
    return best if best is not None and cost(best) < math.inf else None


def _view(row: Checkpoint, values: dict[str, float | None], *, is_best: bool) -> CheckpointView:
    return from_row(
        CheckpointView,
        row,
        num_bytes=row.num_bytes if row.policy_num_bytes is None else row.policy_num_bytes,
        is_best=is_best,
        is_resumable=row.status is CheckpointStatus.COMMITTED,
        has_archive=row.policy_prefix is not None,
        metrics=values,
    )
