"""Checkpoints, artifacts and stage outputs: rows that make objects exist."""

from collections.abc import Collection

from sqlalchemy import case, exists, or_, select
from sqlalchemy.orm import Session

from core.database.tables.datasets import Dataset, DatasetStatus
from core.database.tables.exports import ExportRequest
from core.database.tables.jobs import Job
from core.database.tables.objects import Artifact, ArtifactFile, Checkpoint, CheckpointStatus, StageOutput
from core.domain.jobs.job_state import Stage
from core.domain.jobs.methods import METHODS

_STAGE_ORDER = {stage: position for position, stage in enumerate(Stage)}


def list_checkpoints(session: Session, job_id: str) -> list[Checkpoint]:
    """Return committed checkpoints, the latest step first."""
    order = case(_STAGE_ORDER, value=Checkpoint.stage)
    statement = (
        select(Checkpoint)
        .where(Checkpoint.job_id == job_id, Checkpoint.status == CheckpointStatus.COMMITTED)
        .order_by(order.desc(), Checkpoint.step.desc(), Checkpoint.attempt.desc())
    )
    return list(session.scalars(statement))


def list_policies(session: Session, job_id: str) -> list[Checkpoint]:
    """Return checkpoints whose policy is kept, the latest step first."""
    order = case(_STAGE_ORDER, value=Checkpoint.stage)
    statement = (
        select(Checkpoint)
        .where(Checkpoint.job_id == job_id, Checkpoint.policy_prefix.is_not(None))
        .order_by(order.desc(), Checkpoint.step.desc(), Checkpoint.attempt.desc())
    )
    return list(session.scalars(statement))


def find_policy(session: Session, job_id: str, checkpoint_id: str) -> Checkpoint | None:
    """Find a checkpoint whose policy is kept."""
    statement = select(Checkpoint).where(
        Checkpoint.id == checkpoint_id, Checkpoint.job_id == job_id, Checkpoint.policy_prefix.is_not(None)
    )
    return session.scalar(statement)


def find_checkpoint(session: Session, job_id: str, checkpoint_id: str) -> Checkpoint | None:
    """Find a committed checkpoint."""
    statement = select(Checkpoint).where(
        Checkpoint.id == checkpoint_id,
        Checkpoint.job_id == job_id,
        Checkpoint.status == CheckpointStatus.COMMITTED,
    )
    return session.scalar(statement)


def find_checkpoint_at(session: Session, job_id: str, stage: Stage, step: int, attempt: int) -> Checkpoint | None:
    statement = select(Checkpoint).where(
        Checkpoint.job_id == job_id,
        Checkpoint.stage == stage,
        Checkpoint.step == step,
        Checkpoint.attempt == attempt,
    )
    return session.scalar(statement)


def list_by_ids(session: Session, checkpoint_ids: Collection[str]) -> list[Checkpoint]:
    """Return checkpoints of any jobs, those that are records only too."""
    return list(session.scalars(select(Checkpoint).where(Checkpoint.id.in_(checkpoint_ids))))


def find_artifact(session: Session, job_id: str) -> Artifact | None:
    return session.scalar(select(Artifact).where(Artifact.job_id == job_id))


def list_artifacts(session: Session, job_ids: Collection[str]) -> dict[str, Artifact]:
    rows = session.scalars(select(Artifact).where(Artifact.job_id.in_(job_ids)))
    return {artifact.job_id: artifact for artifact in rows}


def list_unread_artifacts(session: Session, limit: int) -> list[Artifact]:
    """Return artifacts whose type of weights is not known yet."""
    return list(session.scalars(select(Artifact).where(Artifact.weights_dtype.is_(None)).limit(limit)))


def find_weights_key(session: Session, job_id: str) -> str | None:
    """Return the key of a file with published weights."""
    is_weights = (ArtifactFile.path.like("model%.safetensors"), ArtifactFile.job_id == job_id)
    return session.scalar(select(ArtifactFile.key).where(*is_weights).order_by(ArtifactFile.path).limit(1))


def list_published_jobs(session: Session, project_id: str, before: str | None, limit: int) -> list[Job]:
    """Return jobs that have published a policy, newest first."""
    method = Job.spec["method"].as_string()  # none in specs of the default one
    is_policy = or_(method.is_(None), method.in_([name for name, item in METHODS.items() if item.publishes_policy]))
    statement = select(Job).join(Artifact, Artifact.job_id == Job.id).where(Job.project_id == project_id, is_policy)
    if before is not None:
        statement = statement.where(Job.id < before)
    return list(session.scalars(statement.order_by(Job.id.desc()).limit(limit)))


def list_artifact_files(session: Session, job_id: str) -> list[ArtifactFile]:
    statement = select(ArtifactFile).where(ArtifactFile.job_id == job_id).order_by(ArtifactFile.path)
    return list(session.scalars(statement))


def list_named_files(session: Session, job_ids: Collection[str], path: str) -> dict[str, ArtifactFile]:
    """Return the file of that path in the artifacts that have it, by job."""
    statement = select(ArtifactFile).where(ArtifactFile.job_id.in_(job_ids), ArtifactFile.path == path)
    return {row.job_id: row for row in session.scalars(statement)}


def find_stage_output(session: Session, project_id: str, digest: str) -> StageOutput | None:
    return session.scalar(select(StageOutput).where(StageOutput.project_id == project_id, StageOutput.digest == digest))


def list_stage_outputs_of(session: Session, job_id: str) -> list[StageOutput]:
    return list(session.scalars(select(StageOutput).where(StageOutput.job_id == job_id)))


def is_prefix_named(session: Session, prefix: str) -> bool:
    """Whether a committed row names these objects."""
    checkpoints = exists().where(Checkpoint.prefix == prefix, Checkpoint.status == CheckpointStatus.COMMITTED)
    policies = exists().where(Checkpoint.policy_prefix == prefix)
    artifacts = exists().where(Artifact.prefix == prefix)
    outputs = exists().where(StageOutput.prefix == prefix)
    exports = exists().where(ExportRequest.prefix == prefix)
    return bool(session.scalar(select(or_(checkpoints, policies, artifacts, outputs, exports))))


def has_dataset_rows(session: Session, dataset_id: str) -> bool:
    """Whether the store holds objects of the dataset; of a rejected one only the report is kept."""
    is_kept = (Dataset.id == dataset_id, Dataset.status != DatasetStatus.REJECTED)
    return bool(session.scalar(select(exists().where(*is_kept))))


def is_dataset_kept(session: Session, dataset_id: str) -> bool:
    return bool(session.scalar(select(exists().where(Dataset.id == dataset_id))))
