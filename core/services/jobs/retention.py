"""Retention of finished jobs' objects in the store: as the operator sets it, by default for ever.

The record stays: the job, its curves and its events. Datasets are their owners' to delete.
"""

from collections.abc import Callable
from dataclasses import dataclass

import structlog
from sqlalchemy.orm import Session

from core.database.repositories import garbage, objects, requests, retention
from core.database.repositories import jobs as job_rows
from core.database.repositories.events import SWEEPER, EventDraft, append_event
from core.database.tables.exports import ExportRequest
from core.database.tables.jobs import Job
from core.database.tables.objects import CheckpointStatus
from core.services.backend import Backend
from core.services.transactions import writes

MAX_JOBS = 20
"""Jobs of each kind in one pass."""
PAUSE_STEPS = 12
"""Between two passes: a minute at the default sweep interval."""
_DAY_SECONDS = 86_400

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class _Rule:
    what: str
    days: float
    list_jobs: Callable[..., list[str]]
    let_go: Callable[[Session, Job, str], None]


class Retention:
    """Scheduler of retention passes, one every so many sweeps."""

    def __init__(self) -> None:
        self._num_paused = PAUSE_STEPS

    def step(self, backend: Backend) -> None:
        self._num_paused += 1
        if self._num_paused > PAUSE_STEPS:
            self._num_paused = 0
            apply(backend)


def apply(backend: Backend) -> int:
    """Delete what is older than the settings allow; return the number of jobs affected."""
    return sum(_apply(backend, rule) for rule in _rules(backend))


def drop_checkpoints(session: Session, job: Job, reason: str) -> None:
    """Delete states to resume from and loadable policies."""
    for checkpoint in objects.list_checkpoints(session, job.id):
        checkpoint.status = CheckpointStatus.DELETED
        garbage.add_garbage(session, job.project_id, checkpoint.prefix, reason)
    for checkpoint in objects.list_policies(session, job.id):
        if checkpoint.policy_prefix is not None:
            garbage.add_garbage(session, job.project_id, checkpoint.policy_prefix, reason)
        checkpoint.policy_prefix = checkpoint.policy_manifest_sha256 = checkpoint.policy_num_bytes = None


def drop_outputs(session: Session, job: Job, reason: str) -> None:
    """Delete the artifact, its exports, and its stage outputs."""
    artifact = objects.find_artifact(session, job.id)
    if artifact is not None:
        garbage.add_garbage(session, job.project_id, artifact.prefix, reason)
        retention.delete_artifact(session, job.id)
    for export in requests.list_requests(session, ExportRequest, job.id):
        if export.prefix is not None:
            garbage.add_garbage(session, job.project_id, export.prefix, reason)
        session.delete(export)
    for output in objects.list_stage_outputs_of(session, job.id):
        garbage.add_garbage(session, job.project_id, output.prefix, reason)
        session.delete(output)


def _rules(backend: Backend) -> list[_Rule]:
    days = {"checkpoints": backend.settings.keep_checkpoints_days, "artifact": backend.settings.keep_artifacts_days}
    ways = {
        "checkpoints": (retention.list_with_checkpoints, drop_checkpoints),
        "artifact": (retention.list_with_outputs, drop_outputs),
    }
    return [_Rule(what, limit, *ways[what]) for what, limit in days.items() if limit is not None]


def _apply(backend: Backend, rule: _Rule) -> int:
    seconds = rule.days * _DAY_SECONDS

    job_ids = backend.database.read(
        lambda session: rule.list_jobs(session, finished_seconds_ago=seconds, limit=MAX_JOBS)
    )
    for job_id in job_ids:
        _let_go(backend, rule, job_id)
        _log.info("retention", job_id=job_id, what=rule.what, days=rule.days)
    return len(job_ids)


@writes
def _let_go(session: Session, rule: _Rule, job_id: str) -> None:
    job = job_rows.lock_job(session, job_id)
    if job is None or job_rows.find_live_user_of_job(session, job_id) is not None:
        return  # deleted, or taken as a base, meanwhile
    rule.let_go(session, job, "retention")
    message = f"The job's {rule.what} went {rule.days:g} days after its end, as this service is set to do."
    # By its token once, should the commit be repeated.
    event = EventDraft(kind="retention", message=message, data={"what": rule.what}, actor=SWEEPER, token=rule.what)
    append_event(session, job, event)
