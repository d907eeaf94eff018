"""Cancel, pause and resume: requests of users to existing jobs."""

from collections.abc import Callable
from functools import partial

from sqlalchemy.orm import Session

from core.database.columns import database_now
from core.database.repositories.events import SWEEPER, EventDraft, append_event
from core.database.repositories.transitions import Transition, move
from core.database.tables.jobs import Job
from core.domain.errors import Conflict
from core.domain.jobs.job_state import FINAL_STATUSES, Desired, JobStatus
from core.failpoints import reach
from core.services.access import audit
from core.services.backend import Backend
from core.services.jobs.jobs import lock
from core.services.jobs.view import view_job
from core.services.transactions import writes
from core.services.views import JobChange


class JobNotCancellable(Conflict):
    code = "job-not-cancellable"
    title = "The job cannot be cancelled"


class JobNotPausable(Conflict):
    code = "job-not-pausable"
    title = "The job cannot be paused"


class JobNotResumable(Conflict):
    code = "job-not-resumable"
    title = "The job cannot be resumed"


def cancel(backend: Backend, project_id: str, job_id: str, *, save: bool = False) -> JobChange:
    """End the job; with `save` the current policy of a running job is published. Raises JobNotCancellable."""
    return _change(backend, project_id, job_id, "job.cancel", partial(_cancel, save=save))


def _cancel(session: Session, job: Job, *, save: bool) -> bool:
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
    move(session, job, Transition(to=JobStatus.CANCELLED, event=EventDraft(kind="cancelled", message="Cancelled.")))
    return True


def pause(backend: Backend, project_id: str, job_id: str) -> JobChange:
    """Stop at a checkpoint and free the device. Raises JobNotPausable."""
    return _change(backend, project_id, job_id, "job.pause", _pause)


def _pause(session: Session, job: Job) -> bool:
    if job.desired is Desired.PAUSE and job.status not in FINAL_STATUSES:
        return False
    if job.status in FINAL_STATUSES or job.desired is Desired.CANCEL:
        state = job.status.value if job.status in FINAL_STATUSES else "being cancelled"
        raise JobNotPausable(f"The job is {state}.")
    if job.status is JobStatus.RUNNING:
        _wish(session, job, Desired.PAUSE, "pause_requested", "The user asked to pause the job.")
    else:
        move(session, job, Transition(to=JobStatus.PAUSED, event=EventDraft(kind="paused", message="Paused.")))
    return True


def resume(backend: Backend, project_id: str, job_id: str) -> JobChange:
    """Queue a paused job again, or withdraw a pending pause. Raises JobNotResumable."""
    change = _change(backend, project_id, job_id, "job.resume", _resume)
    backend.queue.wake()
    return change


def _resume(session: Session, job: Job) -> bool:
    if job.status in FINAL_STATUSES or job.desired is Desired.CANCEL:
        state = job.status.value if job.status in FINAL_STATUSES else "being cancelled"
        raise JobNotResumable(f"The job is {state}.")
    if job.is_at_rung:
        raise JobNotResumable(
            "The job waits for the other members of its sweep, which then goes on with the best ones. To train it "
            "alone, cancel it and retry it: it goes on from its checkpoint."
        )
    if job.status is JobStatus.PAUSED:
        event = EventDraft(kind="resumed", message="Queued again by the user.")
        values = {"next_run_at": database_now(), "wake_sent_at": None}
        move(session, job, Transition(to=JobStatus.QUEUED, event=event, values=values))
        return True
    if job.desired is Desired.RUN:
        return False
    _wish(session, job, Desired.RUN, "resume_requested", "The user withdrew the request to pause.")
    return True


def leave_rung(backend: Backend, project_id: str, job_id: str, pause_at_share: float | None) -> None:
    """Queue a job that waits at a rung of its sweep, to train to the next one, or to its end; others are left alone."""
    _leave_rung(backend, project_id, job_id, pause_at_share)
    backend.queue.wake()


@writes
def _leave_rung(session: Session, project_id: str, job_id: str, pause_at_share: float | None) -> None:
    job = lock(session, project_id, job_id)
    if not job.is_at_rung or job.status is not JobStatus.PAUSED:
        return
    event = EventDraft(kind="resumed", message="Its sweep goes on with it.", actor=SWEEPER)
    values = {
        "next_run_at": database_now(),
        "wake_sent_at": None,
        "is_at_rung": False,
        "pause_at_share": pause_at_share,
    }
    move(session, job, Transition(to=JobStatus.QUEUED, event=event, values=values))


@writes
def _change(
    session: Session, project_id: str, job_id: str, action: str, change: Callable[[Session, Job], bool]
) -> JobChange:
    job = lock(session, project_id, job_id)
    is_changed = change(session, job)
    if is_changed:
        audit.note(session, project_id, action, job_id)
    session.flush()
    reach("change.in_transaction")
    return JobChange(job=view_job(session, job), is_changed=is_changed)


def _wish(session: Session, job: Job, desired: Desired, kind: str, message: str) -> None:
    job.desired = desired
    append_event(session, job, EventDraft(kind=kind, message=message))
