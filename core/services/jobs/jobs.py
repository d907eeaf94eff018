"""Jobs as users handle them: submit, get, list, delete."""

import json
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from core.database.columns import database_now
from core.database.repositories import job_lists
from core.database.repositories import jobs as job_rows
from core.database.repositories.events import EventDraft, append_event
from core.database.tables.jobs import Job
from core.domain.errors import Conflict, InvalidRequest, NotFound, present
from core.domain.jobs.job_queries import JobFilter, JobPosition
from core.domain.jobs.job_spec import JobRequest, JobSpec
from core.domain.jobs.job_state import FINAL_STATUSES, JobStatus
from core.failpoints import reach
from core.services.access import audit
from core.services.access.disk_reserve import require_disk
from core.services.backend import Backend
from core.services.cursors import BAD_CURSOR, decode_cursor, encode_cursor
from core.services.ids import new_id
from core.services.jobs import retention, submission
from core.services.jobs.view import view_job, view_jobs
from core.services.transactions import deletes, reads, writes
from core.services.views import DatasetWarning, JobHead, JobView, Page

NEWEST_FIRST = "-created"


class JobNotFound(NotFound):
    code = "job-not-found"
    title = "There is no such job"


class JobNotDeletable(Conflict):
    code = "job-not-deletable"
    title = "The job cannot be deleted"


class JobNotChangeable(Conflict):
    code = "job-not-changeable"
    title = "The job cannot be changed now"


def submit(
    backend: Backend,
    project_id: str,
    request: JobRequest,
    *,
    job_id: str | None = None,
    source_id: str | None = None,
    first: Callable[[Session], None] | None = None,
    pause_at_share: float | None = None,
) -> JobView:
    """Queue a job. Raises InvalidRequest with one error per faulty field, and what quotas and the disk reserve raise.

    With a `job_id` chosen before (see `idempotency`), a repeated call answers the job that is there. `source_id`: the
    job that this one repeats. `first` runs at the start of the transaction; if it raises, nothing is queued.
    `pause_at_share`: where a sweep compares it with others.
    """
    require_disk(backend.settings, 0, "a new job")
    chosen = job_id or new_id("job")
    draft = submission.prepare(backend, request)

    def work(session: Session) -> JobView:
        if first is not None:
            first(session)
        known = job_rows.find_job(session, project_id, chosen)
        source = find(session, project_id, source_id) if source_id else None
        if known is not None:
            return view_job(session, known)
        job = submission.insert(session, project_id, chosen, draft, source)
        job.pause_at_share = pause_at_share
        audit.note(session, project_id, "job.submit", chosen, source_job_id=source_id)
        return view_job(session, job)

    view = backend.database.write(work)
    reach("submit.committed")
    backend.queue.wake()
    return view


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What `submit` would make of a request."""

    spec: JobSpec
    base_model_name: str
    """Name of the base model at the root."""
    warnings: list[DatasetWarning]


def preview(backend: Backend, project_id: str, request: JobRequest) -> Preview:
    """Return what `submit` would queue. Raises InvalidRequest as it would."""
    return _settle(backend, project_id, submission.prepare(backend, request))


@reads
def _settle(session: Session, project_id: str, draft: submission.Draft) -> Preview:
    settled = submission.settle(session, project_id, draft)
    name = str(settled.start.facts["name"])
    return Preview(spec=settled.spec, base_model_name=name, warnings=settled.warnings)


@reads
def get(session: Session, project_id: str, job_id: str) -> JobView:
    return view_job(session, find(session, project_id, job_id))


@reads
def list_page(
    session: Session, project_id: str, where: JobFilter | None = None, *, limit: int = 20, cursor: str | None = None
) -> Page[JobView]:
    """Return a page of jobs, in the order that `where` asks for: the newest first."""
    query = where or JobFilter()
    after = _read_position(cursor, query) if cursor else None
    found = job_lists.list_jobs(session, project_id, query, after=after, limit=limit + 1)
    shown = found[:limit]
    is_more = len(found) > limit
    jobs = view_jobs(session, [job for job, _ in shown])
    return Page(data=jobs, next_cursor=_cursor(query, shown[-1][1]) if is_more else None)


def _cursor(query: JobFilter, position: JobPosition) -> str:
    return encode_cursor(position.job_id if query.sort == NEWEST_FIRST else json.dumps([query.sort, *position]))


def _read_position(cursor: str, query: JobFilter) -> JobPosition:
    """Read a cursor of the same order; raises InvalidRequest."""
    text = decode_cursor(cursor)
    if query.sort == NEWEST_FIRST:
        return JobPosition(value=text, job_id=text)
    try:
        sort, value, job_id = json.loads(text)
        position = JobPosition(value=value, job_id=job_id)
        if query.sort.endswith("finished") and value is not None:
            datetime.fromisoformat(value)
    except (ValueError, TypeError):
        raise InvalidRequest(BAD_CURSOR) from None
    is_number = query.sort.endswith(("loss", "accuracy", "margin"))
    is_value = isinstance(value, float) and math.isfinite(value) if is_number else isinstance(value, str)
    if sort != query.sort or not (is_value or value is None) or not isinstance(job_id, str):
        raise InvalidRequest(BAD_CURSOR)
    return position


def ensure_found(backend: Backend, project_id: str, job_id: str) -> None:
    """Check that the job exists; raises JobNotFound."""
    if backend.database.read(lambda session: job_rows.find_curve_head(session, project_id, job_id)) is None:
        raise JobNotFound(f"There is no job {job_id}.")


def list_heads(backend: Backend, job_ids: Collection[str]) -> dict[str, JobHead]:
    """Return the states of these jobs, without those that are gone. For a poller of many."""
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


@writes
def patch(session: Session, project_id: str, job_id: str, changes: dict[str, Any]) -> JobView:
    """Change `name`, `metadata`, `priority` or `nodes`, as far as `changes` holds them. Raises JobNotChangeable."""
    job = lock(session, project_id, job_id)
    job.name = changes.get("name", job.name)
    job.user_metadata = changes.get("metadata", job.user_metadata)
    job.priority = changes.get("priority", job.priority)
    _set_nodes(session, job, changes.get("nodes", job.nodes))
    session.flush()
    audit.note(session, project_id, "job.patch", job_id, changed=sorted(changes))
    return view_job(session, job)


def _set_nodes(session: Session, job: Job, nodes: int) -> None:
    """Let another number of workers train the job from its next attempt on."""
    if nodes == job.nodes:
        return
    if job.status not in (JobStatus.QUEUED, JobStatus.PAUSED):
        advice = " Pause it first." if job.status is JobStatus.RUNNING else ""
        raise JobNotChangeable(f"The job is {job.status.value}: nodes change while it is queued or paused.{advice}")
    message = f"The user asked for {nodes} instead of {job.nodes} workers that train the job together."
    data = {"nodes": nodes, "nodes_before": job.nodes}
    append_event(session, job, EventDraft(kind="nodes_changed", message=message, data=data))
    if job.num_unfilled:  # it pauses since too few workers came for the number before
        job.next_run_at, job.num_unfilled = database_now(), 0
    job.nodes, job.estimate = nodes, None
    job.spec, job.requested = _with_nodes(job.spec, nodes), _with_nodes(job.requested, nodes)


def _with_nodes(settings: dict[str, Any], nodes: int) -> dict[str, Any]:
    """Return a job's settings with another number of nodes, of which one is the default."""
    others = {name: value for name, value in settings.items() if name != "nodes"}
    return others if nodes == 1 else others | {"nodes": nodes}


@deletes
def delete(session: Session, project_id: str, job_id: str) -> None:
    """Delete a finished job, its checkpoints and its artifact. Raises JobNotDeletable."""
    job = lock(session, project_id, job_id)
    if job.status not in FINAL_STATUSES:
        raise JobNotDeletable(f"The job is {job.status.value}; cancel it first.")
    user = job_rows.find_live_user_of_job(session, job_id)
    if user is not None:
        raise JobNotDeletable(f"{user} starts from its policy and has not finished.")
    retention.drop_checkpoints(session, job, "job deleted")
    retention.drop_outputs(session, job, "job deleted")
    job_rows.delete_job(session, job_id)
    audit.note(session, project_id, "job.delete", job_id)
    reach("delete.in_transaction")


def find(session: Session, project_id: str, job_id: str) -> Job:
    """Return the job's row; raises JobNotFound."""
    return present(job_rows.find_job(session, project_id, job_id), JobNotFound, f"There is no job {job_id}.")


def lock(session: Session, project_id: str, job_id: str) -> Job:
    """Return the job's row, locked until the transaction ends; raises JobNotFound."""
    return present(job_rows.lock_job(session, job_id, project_id), JobNotFound, f"There is no job {job_id}.")
