"""Jobs as users handle them: submit, look, steer, retry, delete."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from core.database.columns import database_now
from core.database.repositories import jobs as job_rows
from core.database.repositories import metric_blocks, metrics, objects
from core.database.repositories.events import EventDraft, append_event
from core.database.repositories.jobs import JobFilter
from core.database.repositories.transitions import Move, move
from core.database.tables.jobs import Job
from core.database.tables.objects import Checkpoint, CheckpointStatus
from core.domain.errors import Conflict, NotFound
from core.domain.job_spec import JobRequest, JobSpec
from core.domain.job_state import FINAL_STATUSES, Desired, JobStatus
from core.failpoints import reach
from core.services.backend import Backend
from core.services.cursors import decode_cursor, encode_cursor
from core.services.ids import new_id
from core.services.jobs import retention, submission
from core.services.jobs.view import view_job, view_jobs
from core.services.views import JobChange, JobHead, JobView, Page


class JobNotFound(NotFound):
    code = "job-not-found"
    title = "There is no such job"


class JobNotCancellable(Conflict):
    code = "job-not-cancellable"
    title = "The job cannot be cancelled"


class JobNotPausable(Conflict):
    code = "job-not-pausable"
    title = "The job cannot be paused"


class JobNotResumable(Conflict):
    code = "job-not-resumable"
    title = "The job cannot be resumed"


class JobNotRetryable(Conflict):
    code = "job-not-retryable"
    title = "The job cannot be retried"


class JobNotRerunnable(Conflict):
    code = "job-not-rerunnable"
    title = "The job cannot be run again yet"


@dataclass(frozen=True, kw_only=True)
class DataChange:
    """Lines of the uploaded file."""

    exclude_lines: Collection[int]
    swap_lines: Collection[int]


class JobNotDeletable(Conflict):
    code = "job-not-deletable"
    title = "The job cannot be deleted"


def submit(
    backend: Backend, project_id: str, request: JobRequest, *, job_id: str | None = None, source_id: str | None = None
) -> JobView:
    """Queue a job. Raises InvalidRequest with one error per faulty field.

    With a `job_id` chosen before (see `idempotency`), a repeated call answers the job that is there. `source_id`: the
    job that this one repeats.
    """
    chosen = job_id or new_id("job")
    draft = submission.prepare(backend, request)

    def work(session: Session) -> JobView:
        known = job_rows.find_job(session, project_id, chosen)
        source = find(session, project_id, source_id) if source_id else None
        return view_job(session, known or submission.insert(session, project_id, chosen, draft, source))

    view = backend.database.write(work)
    reach("submit.committed")
    backend.queue.wake()
    return view


def preview(backend: Backend, project_id: str, request: JobRequest) -> JobSpec:
    """The spec that `submit` would give the job. Raises InvalidRequest as it would."""
    draft = submission.prepare(backend, request)
    return backend.database.read(lambda session: submission.settle(session, project_id, draft).spec)


def get(backend: Backend, project_id: str, job_id: str) -> JobView:
    return backend.database.read(lambda session: view_job(session, find(session, project_id, job_id)))


def list_page(
    backend: Backend, project_id: str, where: JobFilter | None = None, *, limit: int = 20, cursor: str | None = None
) -> Page[JobView]:
    """Newest first."""
    before = decode_cursor(cursor) if cursor else None

    def work(session: Session) -> Page[JobView]:
        jobs = job_rows.list_jobs(session, project_id, where or JobFilter(), before=before, limit=limit + 1)
        shown = jobs[:limit]
        is_more = len(jobs) > limit
        return Page(data=view_jobs(session, shown), next_cursor=encode_cursor(shown[-1].id) if is_more else None)

    return backend.database.read(work)


def ensure_found(backend: Backend, project_id: str, job_id: str) -> None:
    """Raises JobNotFound."""
    if backend.database.read(lambda session: job_rows.find_curve_head(session, project_id, job_id)) is None:
        raise JobNotFound(f"There is no job {job_id}.")


def list_heads(backend: Backend, job_ids: Collection[str]) -> dict[str, JobHead]:
    """Where these jobs stand; those that are gone are absent. For a poller of many."""
    rows = backend.database.read(lambda session: job_rows.list_heads(session, job_ids))
    return {
        row.id: JobHead(
            id=row.id,
            status=row.status,
            desired=row.desired,
            stage=row.stage,
            step=row.step,
            total_steps=row.total_steps,
            last_metric_seq=row.last_metric_seq,
            rewind_seq=row.rewind_seq,
            last_event_seq=row.last_event_seq,
        )
        for row in rows
    }


def patch(backend: Backend, project_id: str, job_id: str, changes: dict[str, Any]) -> JobView:
    """Change `name`, `metadata` or `priority`, as far as `changes` holds them."""

    def work(session: Session) -> JobView:
        job = lock(session, project_id, job_id)
        job.name = changes.get("name", job.name)
        job.user_metadata = changes.get("metadata", job.user_metadata)
        job.priority = changes.get("priority", job.priority)
        session.flush()
        return view_job(session, job)

    return backend.database.write(work)


def cancel(backend: Backend, project_id: str, job_id: str, *, save: bool = False) -> JobChange:
    """End the job; with `save` the policy of a running job is published as it is. Raises JobNotCancellable."""

    def work(session: Session, job: Job) -> bool:
        if job.status is JobStatus.CANCELLED or (job.status is JobStatus.RUNNING and job.desired is Desired.CANCEL):
            return False
        if job.status in FINAL_STATUSES:
            raise JobNotCancellable(f"The job has {job.status.value} already.")
        if job.status is JobStatus.RUNNING:
            job.saves_on_cancel = save
            _wish(session, job, Desired.CANCEL, "cancel_requested", "The user asked to cancel the job.")
            return True
        if save:
            raise JobNotCancellable(f"The job is {job.status.value}: there is no running policy to save.")
        move(session, job, Move(to=JobStatus.CANCELLED, event=EventDraft(kind="cancelled", message="Cancelled.")))
        return True

    return _change(backend, project_id, job_id, work)


def pause(backend: Backend, project_id: str, job_id: str) -> JobChange:
    """Stop behind a checkpoint and give the device back. Raises JobNotPausable."""

    def work(session: Session, job: Job) -> bool:
        if job.desired is Desired.PAUSE and job.status not in FINAL_STATUSES:
            return False
        if job.status in FINAL_STATUSES or job.desired is Desired.CANCEL:
            state = job.status.value if job.status in FINAL_STATUSES else "being cancelled"
            raise JobNotPausable(f"The job is {state}.")
        if job.status is JobStatus.RUNNING:
            _wish(session, job, Desired.PAUSE, "pause_requested", "The user asked to pause the job.")
        else:
            move(session, job, Move(to=JobStatus.PAUSED, event=EventDraft(kind="paused", message="Paused.")))
        return True

    return _change(backend, project_id, job_id, work)


def resume(backend: Backend, project_id: str, job_id: str) -> JobChange:
    """Queue a paused job again, or take a wish to pause back. Raises JobNotResumable."""

    def work(session: Session, job: Job) -> bool:
        if job.status in FINAL_STATUSES or job.desired is Desired.CANCEL:
            state = job.status.value if job.status in FINAL_STATUSES else "being cancelled"
            raise JobNotResumable(f"The job is {state}.")
        if job.status is JobStatus.PAUSED:
            event = EventDraft(kind="resumed", message="Queued again by the user.")
            values = {"next_run_at": database_now(), "wake_sent_at": None}
            move(session, job, Move(to=JobStatus.QUEUED, event=event, values=values))
            return True
        if job.desired is Desired.RUN:
            return False
        _wish(session, job, Desired.RUN, "resume_requested", "The user took the wish to pause back.")
        return True

    change = _change(backend, project_id, job_id, work)
    backend.queue.wake()
    return change


def retry(backend: Backend, project_id: str, job_id: str, *, new_job_id: str | None = None) -> JobView:
    """A new job with the same settings that goes on from the newest intact checkpoint. Raises JobNotRetryable."""
    chosen = new_job_id or new_id("job")
    requested = backend.database.read(lambda session: find(session, project_id, job_id).requested)
    draft = submission.prepare(backend, JobRequest.model_validate(requested))

    def work(session: Session) -> JobView:
        known = job_rows.find_job(session, project_id, chosen)
        if known is not None:
            return view_job(session, known)
        source = lock(session, project_id, job_id)
        if source.status not in (JobStatus.FAILED, JobStatus.CANCELLED):
            raise JobNotRetryable(f"The job is {source.status.value}; only failed and cancelled ones can be retried.")
        job = submission.insert(session, project_id, chosen, draft, source)
        job.spec = source.spec
        job.name, job.user_metadata, job.priority = source.name, source.user_metadata, source.priority
        _inherit(session, job, objects.list_checkpoints(session, source.id))
        session.flush()
        reach("retry.in_transaction")
        return view_job(session, job)

    view = backend.database.write(work)
    backend.queue.wake()
    return view


def rerun(
    backend: Backend, project_id: str, job_id: str, change: DataChange, *, new_job_id: str | None = None
) -> JobView:
    """The same request again, from the start, with lines left out or turned round besides those it names itself.

    A line that the job swaps and `change` swaps as well is as it was uploaded. Raises JobNotRerunnable.
    """
    source = get(backend, project_id, job_id)
    if source.status not in FINAL_STATUSES:
        raise JobNotRerunnable(f"The job is {source.status.value}; wait until it has ended, or submit another one.")
    request = JobRequest.model_validate(source.requested)
    excluded = {*request.exclude_lines, *change.exclude_lines}
    swapped = ({*request.swap_lines} ^ {*change.swap_lines}) - excluded
    values = source.requested | {"exclude_lines": sorted(excluded), "swap_lines": sorted(swapped)}
    return submit(backend, project_id, JobRequest.model_validate(values), job_id=new_job_id, source_id=job_id)


def delete(backend: Backend, project_id: str, job_id: str) -> None:
    """Forget a finished job, its checkpoints and its artifact. Raises JobNotDeletable."""
    was_here = False

    def work(session: Session) -> None:
        nonlocal was_here
        if was_here and job_rows.find_job(session, project_id, job_id) is None:
            return  # the answer to the commit was lost
        job = lock(session, project_id, job_id)
        was_here = True
        if job.status not in FINAL_STATUSES:
            raise JobNotDeletable(f"The job is {job.status.value}; cancel it first.")
        user = job_rows.find_live_user_of_job(session, job_id)
        if user is not None:
            raise JobNotDeletable(f"{user} starts from its policy and has not finished.")
        retention.drop_checkpoints(session, job, "job deleted")
        retention.drop_outputs(session, job, "job deleted")
        job_rows.delete_job(session, job_id)
        reach("delete.in_transaction")

    backend.database.write(work)


def find(session: Session, project_id: str, job_id: str) -> Job:
    """Raises JobNotFound."""
    job = job_rows.find_job(session, project_id, job_id)
    if job is None:
        raise JobNotFound(f"There is no job {job_id}.")
    return job


def lock(session: Session, project_id: str, job_id: str) -> Job:
    """As `find`, locked until the transaction ends."""
    job = job_rows.lock_job(session, job_id, project_id)
    if job is None:
        raise JobNotFound(f"There is no job {job_id}.")
    return job


def _change(backend: Backend, project_id: str, job_id: str, change: Callable[[Session, Job], bool]) -> JobChange:
    def work(session: Session) -> JobChange:
        job = lock(session, project_id, job_id)
        is_changed = change(session, job)
        session.flush()
        reach("change.in_transaction")
        return JobChange(job=view_job(session, job), is_changed=is_changed)

    return backend.database.write(work)


def _wish(session: Session, job: Job, desired: Desired, kind: str, message: str) -> None:
    job.desired = desired
    append_event(session, job, EventDraft(kind=kind, message=message))


def _inherit(session: Session, job: Job, checkpoints: list[Checkpoint]) -> None:
    """Let the new job start at another's newest checkpoint, with the curve up to there.

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
