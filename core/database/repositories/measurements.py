"""Measurements of finished jobs, workers that are alive, and the jobs that an estimate looks at."""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from core.database.columns import database_after, database_now
from core.database.repositories.datasets import is_named
from core.database.tables.datasets import Dataset
from core.database.tables.jobs import Job
from core.database.tables.measurements import JobMeasurement, WorkerPresence
from core.database.tables.objects import Artifact, Checkpoint, CheckpointStatus, StageOutput
from core.domain.jobs.job_state import JobStatus

MAX_KEPT = 40
"""Measurements kept of each base model, class of worker and settings."""


def add_measurement(session: Session, row: JobMeasurement) -> None:
    """Insert a measurement, and delete the oldest of its kind beyond `MAX_KEPT`."""
    session.add(row)
    session.flush()
    alike = (
        JobMeasurement.base_model == row.base_model,
        JobMeasurement.device_class == row.device_class,
        JobMeasurement.settings == row.settings,
    )
    newest = select(JobMeasurement.job_id).where(*alike).order_by(*_NEWEST_FIRST).limit(MAX_KEPT)
    kept = list(session.scalars(newest))
    gone = delete(JobMeasurement).where(*alike, JobMeasurement.job_id.not_in(kept))
    session.execute(gone.execution_options(synchronize_session=False))


def list_measurements(session: Session, base_model: str, device_class: str) -> list[JobMeasurement]:
    """Return the measurements of a base model on workers of a class, the newest first."""
    where = (JobMeasurement.base_model == base_model, JobMeasurement.device_class == device_class)
    return list(session.scalars(select(JobMeasurement).where(*where).order_by(*_NEWEST_FIRST).limit(10 * MAX_KEPT)))


def find_measurements(session: Session, job_ids: Sequence[str]) -> dict[str, JobMeasurement]:
    rows = session.scalars(select(JobMeasurement).where(JobMeasurement.job_id.in_(job_ids)))
    return {row.job_id: row for row in rows}


_NEWEST_FIRST = (JobMeasurement.created_at.desc(), JobMeasurement.job_id.desc())


def note_worker(session: Session, values: dict[str, Any]) -> None:
    """Insert the worker's row, or renew it."""
    row = session.get(WorkerPresence, values["name"], with_for_update=True)
    if row is None:
        session.add(WorkerPresence(**values, started_at=database_now(), seen_at=database_now()))
        return
    for name, value in values.items():
        setattr(row, name, value)
    row.seen_at = database_now()


def delete_worker(session: Session, name: str) -> None:
    session.execute(delete(WorkerPresence).where(WorkerPresence.name == name))


def delete_silent_workers(session: Session, seconds: float) -> None:
    session.execute(delete(WorkerPresence).where(WorkerPresence.seen_at < database_after(-seconds)))


def list_training_workers(session: Session, seconds: float) -> list[WorkerPresence]:
    """Return the workers that train and were seen in the last `seconds`, by name."""
    where = (WorkerPresence.trains, WorkerPresence.seen_at >= database_after(-seconds))
    return list(session.scalars(select(WorkerPresence).where(*where).order_by(WorkerPresence.name)))


def stored_bytes(session: Session, job_id: str) -> tuple[int | None, int | None, int | None]:
    """Return the largest resumable state, policy of a checkpoint, and artifact of a job; None where there is none."""
    written = select(func.max(Checkpoint.num_bytes), func.max(Checkpoint.policy_num_bytes))
    states = written.where(Checkpoint.job_id == job_id, Checkpoint.status != CheckpointStatus.CORRUPT)
    state, policy = session.execute(states).one()
    artifact = session.scalar(select(Artifact.num_bytes).where(Artifact.job_id == job_id))
    return state, policy, artifact


def list_unestimated(session: Session, limit: int, *, left_out: Collection[str] = ()) -> list[Job]:
    """Return jobs that have not ended and have no estimate, the newest first, other than those `left_out`."""
    waiting = (JobStatus.QUEUED, JobStatus.RUNNING)
    statement = select(Job).where(Job.status.in_(waiting), Job.estimate.is_(None), Job.attempt <= 1)
    if left_out:
        statement = statement.where(Job.id.not_in(left_out))
    return list(session.scalars(statement.order_by(Job.id.desc()).limit(limit)))


def set_estimate(session: Session, job_id: str, estimate: dict[str, Any]) -> None:
    """Store an estimate unless the job has one or has ended."""
    waiting = Job.status.in_((JobStatus.QUEUED, JobStatus.RUNNING))
    statement = update(Job).where(Job.id == job_id, Job.estimate.is_(None), waiting).values(estimate=estimate)
    session.execute(statement.execution_options(synchronize_session=False))


def list_active(session: Session, limit: int) -> list[Job]:
    """Return running jobs, then queued ones in the order of priority and age."""
    running = select(Job).where(Job.status == JobStatus.RUNNING).limit(limit)
    queued = select(Job).where(Job.status == JobStatus.QUEUED).order_by(Job.priority.desc(), Job.id).limit(limit)
    return [*session.scalars(running), *session.scalars(queued)]


def list_stage_makers(session: Session, project_id: str, dataset_name: str, limit: int) -> list[tuple[Job, str]]:
    """Return the jobs of a version of a dataset that made the newest stage outputs, each with the stage."""
    statement = (
        select(Job, StageOutput.stage)
        .join(StageOutput, StageOutput.job_id == Job.id)
        .where(Job.project_id == project_id, Job.dataset_id.in_(select(Dataset.id).where(is_named(dataset_name))))
        .order_by(StageOutput.created_at.desc())
        .limit(limit)
    )
    return [(job, stage.value) for job, stage in session.execute(statement)]
