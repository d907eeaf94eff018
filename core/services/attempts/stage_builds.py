"""Equal stages of concurrent jobs are built once: the others wait for the first one."""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from core.database.repositories import stage_builds
from core.database.tables.jobs import Job
from core.domain.jobs.job_state import Stage
from core.services.attempts.claimed_job import ClaimedJob, fenced


@dataclass(frozen=True, kw_only=True)
class Builder:
    """A running job that builds the same output."""

    job_id: str
    is_past: bool
    """It is in a later stage: the output is on its way to the store, or was lost."""


@fenced
def announce(session: Session, job: Job, claim: ClaimedJob, stage: Stage, digest: str) -> Builder | None:
    """Return the job that builds this output; None makes this attempt the builder, until it ends or is done."""
    stage_builds.lock_builds(session, job.project_id)
    builder = stage_builds.find_builder(session, job.project_id, digest)
    if builder is not None and builder.id != job.id:
        return Builder(job_id=builder.id, is_past=_is_past(builder, stage))
    stage_builds.announce_build(session, job, digest)
    return None


def _is_past(builder: Job, stage: Stage) -> bool:
    order = list(Stage)
    return builder.stage is not None and order.index(builder.stage) > order.index(stage)
