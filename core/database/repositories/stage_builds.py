"""Rows that say which attempt builds which stage output, so that equal jobs wait for it."""

from sqlalchemy import and_, delete, exists, select
from sqlalchemy.orm import Session

from core.database.columns import database_now
from core.database.tables.jobs import Job
from core.database.tables.objects import StageBuild
from core.database.tables.projects import Project
from core.domain.jobs.job_state import JobStatus

_IS_ALIVE = and_(Job.id == StageBuild.job_id, Job.attempt == StageBuild.attempt, Job.status == JobStatus.RUNNING)


def lock_builds(session: Session, project_id: str) -> None:
    """Lock the project's announcements of builds until the end of the transaction."""
    session.execute(select(Project.id).where(Project.id == project_id).with_for_update(key_share=True))


def find_builder(session: Session, project_id: str, digest: str) -> Job | None:
    """Find the running job whose current attempt announced to build it."""
    mine = (StageBuild.project_id == project_id, StageBuild.digest == digest)
    return session.scalar(select(Job).join(StageBuild, _IS_ALIVE).where(*mine))


def announce_build(session: Session, job: Job, digest: str) -> None:
    """Announce a build under the lock; announcements of ended attempts are deleted."""
    is_alive = exists().where(_IS_ALIVE)
    in_project = StageBuild.project_id == job.project_id
    session.execute(delete(StageBuild).where(in_project, ~is_alive).execution_options(synchronize_session=False))
    forget_build(session, job.project_id, digest)
    session.add(
        StageBuild(
            project_id=job.project_id, digest=digest, job_id=job.id, attempt=job.attempt, created_at=database_now()
        )
    )


def forget_build(session: Session, project_id: str, digest: str) -> None:
    mine = (StageBuild.project_id == project_id, StageBuild.digest == digest)
    session.execute(delete(StageBuild).where(*mine).execution_options(synchronize_session=False))
