"""Finished jobs with objects that retention may delete, by the database's clock."""

from sqlalchemy import ColumnElement, delete, exists, or_, select
from sqlalchemy.orm import Session, aliased

from core.database.columns import database_after
from core.database.tables.jobs import Job
from core.database.tables.objects import Artifact, ArtifactFile, Checkpoint, CheckpointStatus, StageOutput
from core.domain.jobs.job_state import FINAL_STATUSES


def list_with_checkpoints(session: Session, *, finished_seconds_ago: float, limit: int) -> list[str]:
    """Return ids of jobs with checkpoints, first finished first."""
    is_kept = or_(Checkpoint.status == CheckpointStatus.COMMITTED, Checkpoint.policy_prefix.is_not(None))
    return _list(session, exists().where(Checkpoint.job_id == Job.id, is_kept), finished_seconds_ago, limit)


def list_with_outputs(session: Session, *, finished_seconds_ago: float, limit: int) -> list[str]:
    """Return ids of jobs with artifacts or stage outputs, first finished first."""
    has_output = or_(exists().where(Artifact.job_id == Job.id), exists().where(StageOutput.job_id == Job.id))
    return _list(session, has_output, finished_seconds_ago, limit)


def delete_artifact(session: Session, job_id: str) -> None:
    delete_artifact_files(session, job_id)
    session.execute(delete(Artifact).where(Artifact.job_id == job_id))


def delete_artifact_files(session: Session, job_id: str) -> None:
    """Delete the rows of its files, exports included; the artifact's own row stays."""
    session.execute(delete(ArtifactFile).where(ArtifactFile.job_id == job_id))


def _list(session: Session, condition: ColumnElement[bool], seconds: float, limit: int) -> list[str]:
    """Return jobs that no live job starts from."""
    user = aliased(Job)
    is_used = exists().where(user.base_job_id == Job.id, user.status.not_in(FINAL_STATUSES))
    is_old = Job.finished_at < database_after(-seconds)
    return list(
        session.scalars(select(Job.id).where(is_old, condition, ~is_used).order_by(Job.finished_at).limit(limit))
    )
