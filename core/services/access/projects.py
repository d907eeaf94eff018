"""Projects: every resource belongs to one; its use of resources can be limited."""

import re
from dataclasses import asdict, dataclass

from sqlalchemy.orm import Session

from core.database.columns import database_now
from core.database.repositories import access, usage
from core.database.tables.access import ProjectLimits
from core.database.tables.projects import Project
from core.domain.errors import Conflict, InvalidRequest, NotFound
from core.domain.jobs.job_state import JobStatus
from core.services.access import audit
from core.services.transactions import reads, writes

_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")


class ProjectNotFound(NotFound):
    code = "project-not-found"
    title = "There is no such project"


class ProjectExists(Conflict):
    code = "project-exists"
    title = "There is such a project already"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of a project; None is unlimited."""

    max_stored_bytes: int | None = None
    """Limit of all that is stored, announced and arriving together; asked when an upload or a job comes."""
    max_upload_bytes: int | None = None
    """Limit of one file."""
    max_queued_jobs: int | None = None
    max_running_jobs: int | None = None
    """More wait in the queue."""
    max_requests_per_minute: int | None = None
    """Limit of one key, in each API process."""


@dataclass(frozen=True, kw_only=True)
class ProjectView:
    id: str
    limits: Limits
    stored_bytes: int
    num_queued: int
    num_running: int


@writes
def create(session: Session, project_id: str) -> None:
    """Create a project. Raises InvalidRequest, ProjectExists."""
    if not _ID.fullmatch(project_id):
        raise InvalidRequest("A project's id is at most 40 of a-z, 0-9 and `-`, and starts with a letter or digit.")
    if access.find_project(session, project_id) is not None:
        raise ProjectExists(f"There is a project {project_id} already.")
    session.add(Project(id=project_id, name=project_id, created_at=database_now()))
    audit.note(session, project_id, "project.create", project_id)


@reads
def list_projects(session: Session) -> list[ProjectView]:
    return [_view(session, project.id) for project in access.list_projects(session)]


@writes
def set_limits(session: Session, project_id: str, limits: Limits) -> None:
    """Replace all limits. Raises ProjectNotFound, InvalidRequest."""
    if any(value is not None and value < 0 for value in asdict(limits).values()) or limits.max_requests_per_minute == 0:
        raise InvalidRequest("Limits are not negative; requests per minute are at least 1.")
    require_project(session, project_id)
    row = access.lock_limits(session, project_id) or ProjectLimits(project_id=project_id)
    for name, value in asdict(limits).items():
        setattr(row, name, value)
    session.add(row)
    audit.note(session, project_id, "project.limit", project_id, **asdict(limits))


def require_project(session: Session, project_id: str) -> None:
    """Check that the project exists; raises ProjectNotFound."""
    if access.find_project(session, project_id) is None:
        raise ProjectNotFound(f"There is no project {project_id}; `preftune projects list` shows all.")


def limits_of(row: ProjectLimits | None) -> Limits:
    return Limits(**{name: getattr(row, name) for name in Limits.__dataclass_fields__}) if row else Limits()


def _view(session: Session, project_id: str) -> ProjectView:
    return ProjectView(
        id=project_id,
        limits=limits_of(access.find_limits(session, project_id)),
        stored_bytes=sum(usage.bytes_by_kind(session, project_id).values()),
        num_queued=access.count_jobs(session, project_id, JobStatus.QUEUED),
        num_running=access.count_jobs(session, project_id, JobStatus.RUNNING),
    )
