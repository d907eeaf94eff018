"""Retry and rerun: a new job from the settings and checkpoints of an ended one."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from core.database.columns import database_now
from core.database.repositories import datasets as dataset_rows
from core.database.repositories import jobs as job_rows
from core.database.repositories import metric_blocks, metrics, objects
from core.database.tables.datasets import Dataset
from core.database.tables.jobs import Job
from core.database.tables.objects import Checkpoint, CheckpointStatus
from core.domain.errors import Conflict
from core.domain.jobs.job_spec import JobRequest
from core.domain.jobs.job_state import FINAL_STATUSES, JobStatus
from core.domain.jobs.whole_numbers import STORED
from core.failpoints import reach
from core.services.access import audit
from core.services.access.disk_reserve import require_disk
from core.services.backend import Backend
from core.services.ids import new_id
from core.services.jobs import submission
from core.services.jobs.jobs import find, get, lock, submit
from core.services.jobs.view import view_job
from core.services.views import JobView


class JobNotRetryable(Conflict):
    code = "job-not-retryable"
    title = "The job cannot be retried"


class JobNotRerunnable(Conflict):
    code = "job-not-rerunnable"
    title = "The job cannot be run again yet"


@dataclass(frozen=True, kw_only=True)
class DataChange:
    """Edits by line of the uploaded file."""

    exclude_lines: Collection[int]
    swap_lines: Collection[int]


def retry(backend: Backend, project_id: str, job_id: str, *, new_job_id: str | None = None) -> JobView:
    """Create a job with the same settings, from the newest intact checkpoint. Raises JobNotRetryable."""
    require_disk(backend.settings, 0, "a new job")
    chosen = new_job_id or new_id("job")
    requested = backend.database.read(lambda session: _same_data(session, find(session, project_id, job_id)))
    draft = submission.prepare(backend, JobRequest.model_validate(requested, context=STORED))

    def work(session: Session) -> JobView:
        known = job_rows.find_job(session, project_id, chosen)
        if known is not None:
            return view_job(session, known)
        source = lock(session, project_id, job_id)
        if source.status not in (JobStatus.FAILED, JobStatus.CANCELLED):
            raise JobNotRetryable(f"The job is {source.status.value}; only failed and cancelled ones can be retried.")
        job = submission.insert(session, project_id, chosen, draft, source)
        job.requested, job.spec = source.requested, source.spec
        job.name, job.user_metadata, job.priority = source.name, source.user_metadata, source.priority
        _inherit(session, job, objects.list_checkpoints(session, source.id))
        session.flush()
        audit.note(session, project_id, "job.retry", chosen, source_job_id=job_id)
        reach("retry.in_transaction")
        return view_job(session, job)

    view = backend.database.write(work)
    backend.queue.wake()
    return view


def rerun(
    backend: Backend, project_id: str, job_id: str, change: DataChange, *, new_job_id: str | None = None
) -> JobView:
    """Create a job of the same request, from the start, with more lines left out or swapped.

    A line that the job swaps and `change` swaps as well is as it was uploaded. Raises JobNotRerunnable.
    """
    source = get(backend, project_id, job_id)
    if source.status not in FINAL_STATUSES:
        raise JobNotRerunnable(f"The job is {source.status.value}; wait until it has ended, or submit another one.")
    requested = backend.database.read(lambda session: _same_data(session, find(session, project_id, job_id)))
    request = JobRequest.model_validate(requested, context=STORED)
    excluded = {*request.exclude_lines, *change.exclude_lines}
    swapped = ({*request.swap_lines} ^ {*change.swap_lines}) - excluded
    values = requested | {"exclude_lines": sorted(excluded), "swap_lines": sorted(swapped)}
    return submit(
        backend, project_id, JobRequest.model_validate(values, context=STORED), job_id=new_job_id, source_id=job_id
    )


def _same_data(session: Session, job: Job) -> dict[str, Any]:
    """Return the job's request with the versions of its datasets named: newer ones may be there, or these be gone."""

    def grown(dataset_id: str | None) -> Dataset | None:
        row = dataset_rows.find_dataset(session, job.project_id, dataset_id) if dataset_id else None
        return row if row is not None and row.has_versions else None

    rows = [grown(dataset_id) for dataset_id in (job.dataset_id, job.sft_dataset_id, job.validation_dataset_id)]
    pinned, sft = submission.pin_versions(job.requested, *rows), job.spec.get("sft")
    told = {name: str(job.spec[name]) for name in ("dataset_id", "validation_dataset_id") if job.spec.get(name)}
    pinned |= {name: version for name, version in told.items() if "@" in version}
    if isinstance(sft, dict) and "@" in str(sft.get("dataset_id")):
        pinned["sft"] = {**pinned["sft"], "dataset_id": sft["dataset_id"]}
    return pinned


def _inherit(session: Session, job: Job, checkpoints: list[Checkpoint]) -> None:
    """Start the new job at another's newest checkpoint, with the curve up to there.

    The older ones come along: should the newest turn out to be damaged, the attempt falls back to them.
    """
    newest_at = {(checkpoint.stage, checkpoint.step): checkpoint for checkpoint in reversed(checkpoints)}
    session.add_all(
        Checkpoint(
            id=new_id("ckpt"),
            job_id=job.id,
            project_id=job.project_id,
            attempt=0,
            stage=checkpoint.stage,
            step=checkpoint.step,
            status=CheckpointStatus.COMMITTED,
            prefix=checkpoint.prefix,
            manifest_sha256=checkpoint.manifest_sha256,
            num_bytes=checkpoint.num_bytes,
            policy_prefix=checkpoint.policy_prefix,
            policy_manifest_sha256=checkpoint.policy_manifest_sha256,
            policy_num_bytes=checkpoint.policy_num_bytes,
            created_at=database_now(),
        )
        for checkpoint in newest_at.values()
    )
    if checkpoints:
        point = metrics.ResumePoint(stage=checkpoints[0].stage, step=checkpoints[0].step)
        metrics.copy_points(session, checkpoints[0].job_id, job, point)
        metric_blocks.copy_blocks(session, checkpoints[0].job_id, job, point)
