"""Job views, made from rows."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from core.database.repositories import attempts as attempt_rows
from core.database.repositories import jobs as job_rows
from core.database.repositories import measurements, objects
from core.database.repositories.positions import queue_positions
from core.database.tables.jobs import Job, JobStage
from core.database.tables.measurements import JobMeasurement
from core.database.tables.objects import Artifact
from core.domain.jobs.failure_codes import TITLES
from core.domain.jobs.job_state import JobStatus, Stage
from core.domain.jobs.methods import method_of
from core.services.jobs.progress import StageState, estimate
from core.services.jobs.weights import is_merged_in_bf16
from core.services.views import ArtifactSummary, JobErrorView, JobView, ProgressView, StageView, from_row

_LEFT_OUT = ("reused", "skipped")


def view_jobs(session: Session, jobs: Sequence[Job]) -> list[JobView]:
    """Return the views of all jobs with a fixed number of queries."""
    job_ids = [job.id for job in jobs]
    if not job_ids:
        return []
    stages: dict[str, dict[Stage, JobStage]] = {job_id: {} for job_id in job_ids}
    for row in job_rows.list_stages(session, job_ids):
        stages[row.job_id][row.stage] = row
    artifacts = objects.list_artifacts(session, job_ids)
    measured = measurements.find_measurements(session, [job.id for job in jobs if job.status is JobStatus.SUCCEEDED])
    positions = queue_positions(session, [job for job in jobs if job.status is JobStatus.QUEUED])
    now = attempt_rows.database_time(session)
    return [
        replace(
            _view(job, stages[job.id], artifacts.get(job.id), positions.get(job.id), now),
            actual=_actual(job, measured.get(job.id)),
        )
        for job in jobs
    ]


def view_job(session: Session, job: Job) -> JobView:
    return view_jobs(session, [job])[0]


def _view(
    job: Job, stages: dict[Stage, JobStage], artifact: Artifact | None, position: int | None, now: datetime
) -> JobView:
    error = None
    if job.error_code is not None:
        error = JobErrorView(code=job.error_code, title=TITLES[job.error_code], detail=job.error_detail or "")
    return from_row(
        JobView,
        job,
        spec={"dataset_version": 1} | job.spec,
        progress=_progress(job, stages, now),
        queue_position=position,
        stages=[_view_stage(stage, stages.get(stage)) for stage in method_of(job.spec).stages],
        error=error,
        artifact=_summarise(job, artifact) if artifact else None,
        actual=None,
        metadata=job.user_metadata,
        base_model_name=str(job.base_model_facts["name"]),
    )


def _actual(job: Job, measured: JobMeasurement | None) -> dict[str, Any] | None:
    """Return what the job took; memory and work only of one that ran in one attempt."""
    if job.status is not JobStatus.SUCCEEDED:
        return None
    values = measured.values if measured else {}
    return {
        "seconds": round(job.runtime_seconds, 1),
        "peak_memory_bytes": values.get("memory", {}).get("peak_bytes") or None,
        "tokens": values.get("tokens", {}),
        "steps": values.get("steps", {}),
    }


def _summarise(job: Job, artifact: Artifact) -> ArtifactSummary:
    return ArtifactSummary(
        num_files=artifact.num_files,
        num_bytes=artifact.num_bytes,
        weights_dtype=artifact.weights_dtype,
        merged_in_bf16=is_merged_in_bf16(job.spec, artifact.weights_dtype),
    )


def _view_stage(stage: Stage, row: JobStage | None) -> StageView:
    return StageView(
        name=stage,
        status=row.status if row else "pending",
        started_at=row.started_at if row else None,
        finished_at=row.finished_at if row else None,
        steps=row.steps if row else 0,
        reused_from=row.reused_from if row else None,
    )


def _progress(job: Job, stages: dict[Stage, JobStage], now: datetime) -> ProgressView:
    states = {stage: _state(job, row, now) for stage, row in stages.items()}
    guess = estimate(job.spec, job.stage, states)
    is_running = job.status is JobStatus.RUNNING
    return ProgressView(
        stage=job.stage,
        step=job.step,
        total_steps=job.total_steps,
        fraction=1.0 if job.status is JobStatus.SUCCEEDED else guess.fraction,
        eta_seconds=guess.eta_seconds if is_running else None,
        tokens_per_second=job.tokens_per_second if is_running else None,
    )


def _state(job: Job, row: JobStage, now: datetime) -> StageState:
    fraction = 1.0
    if row.finished_at is None:
        is_known = row.stage is job.stage and job.total_steps > 0
        fraction = min(1.0, job.step / job.total_steps) if is_known else 0.0
    return StageState(
        fraction=fraction,
        elapsed_seconds=((row.finished_at or now) - row.started_at).total_seconds(),
        is_left_out=row.status in _LEFT_OUT,
    )
