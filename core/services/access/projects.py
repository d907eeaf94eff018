"""Projects: every resource belongs to one; its use of resources can be limited."""

import re
from dataclasses import asdict, dataclass

from sqlalchemy.orm import Session

from core.database.columns import database_now
from core.database.repositories import access
from core.database.tables.access import ProjectLimits
from core.database.tables.projects import Project
from core.domain.errors import Conflict, InvalidRequest, Limited, NotFound
from core.domain.job_state import JobStatus
from core.services.backend import Backend

_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")


class ProjectNotFound(NotFound):
    code = "project-not-found"
    title = "There is no such project"


class ProjectExists(Conflict):
    code = "project-exists"
    title = "There is such a project already"


class QuotaExceeded(Limited):
    code = "quota-exceeded"
    title = "The project has taken what it may"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of a project; None is unlimited."""

    max_stored_bytes: int | None = None
    """Data sets, artifacts, checkpoints and outputs of stages together; asked when a data set comes."""
    max_upload_bytes: int | None = None
    """Of one file."""
    max_queued_jobs: int | None = None
    max_running_jobs: int | None = None
    """More wait in the queue."""
    max_requests_per_minute: int | None = None
    """Of one key, in each API process."""


@dataclass(frozen=True, kw_only=True)
class ProjectView:
    id: str
    limits: Limits
    stored_bytes: int
    num_queued: int
    num_running: int


def create(backend: Backend, project_id: str) -> None:
    """Create a project. Raises InvalidRequest, ProjectExists."""
    if not _ID.fullmatch(project_id):
        raise InvalidRequest("A project's id is at most 40 of a-z, 0-9 and `-`, and starts with a letter or digit.")

    def work(session: Session) -> None:
        if access.find_project(session, project_id) is not None:
            raise ProjectExists(f"There is a project {project_id} already.")
        session.add(Project(id=project_id, name=project_id, created_at=database_now()))

    backend.database.write(work)


def list_projects(backend: Backend) -> list[ProjectView]:
    return backend.database.read(
        lambda session: [_view(session, project.id) for project in access.list_projects(session)]
    )


def set_limits(backend: Backend, project_id: str, limits: Limits) -> None:
    """Replace all limits. Raises ProjectNotFound, InvalidRequest."""
    if any(value is not None and value < 0 for value in asdict(limits).values()) or limits.max_requests_per_minute == 0:
        raise InvalidRequest("Limits are not negative; requests per minute are at least 1.")

    def work(session: Session) -> None:
        require_project(session, project_id)
        row = access.lock_limits(session, project_id) or ProjectLimits(project_id=project_id)
        for name, value in asdict(limits).items():
            setattr(row, name, value)
        session.add(row)

    backend.database.write(work)


def require_project(session: Session, project_id: str) -> None:
    """Check that the project exists; raises ProjectNotFound."""
    if access.find_project(session, project_id) is None:
        raise ProjectNotFound(f"There is no project {project_id}; `preftune projects list` shows all.")


def require_room_for_job(session: Session, project_id: str) -> None:
    """Check the job limit in the transaction that queues one. Raises QuotaExceeded."""
    limits = access.lock_limits(session, project_id)
    if limits is None or limits.max_queued_jobs is None:
        return
    if access.count_jobs(session, project_id, JobStatus.QUEUED) >= limits.max_queued_jobs:
        raise QuotaExceeded(
            f"The project has {limits.max_queued_jobs} queued jobs, which is all it may have; wait for one to start.",
            quota="max_queued_jobs",
        )


def require_room(session: Session, project_id: str, num_bytes: int) -> None:
    """Check the storage limit in the transaction that records a file of this size. Raises QuotaExceeded."""
    limits = access.lock_limits(session, project_id)
    if limits is None:
        return
    if limits.max_upload_bytes is not None and num_bytes > limits.max_upload_bytes:
        raise QuotaExceeded(
            f"The file has {num_bytes:,} bytes; a file of this project may have {limits.max_upload_bytes:,}.",
            quota="max_upload_bytes",
        )
    if limits.max_stored_bytes is None:
        return
    taken = access.stored_bytes(session, project_id)
    if taken + num_bytes > limits.max_stored_bytes:
        raise QuotaExceeded(
            f"The project stores {taken:,} of {limits.max_stored_bytes:,} bytes; {num_bytes:,} more are too many. "
            "Delete data sets or jobs.",
            quota="max_stored_bytes",
        )


def _view(session: Session, project_id: str) -> ProjectView:
    row = access.find_limits(session, project_id)
    names = Limits.__dataclass_fields__
    return ProjectView(
        id=project_id,
        limits=Limits(**{name: getattr(row, name) for name in names}) if row else Limits(),
        stored_bytes=access.stored_bytes(session, project_id),
        num_queued=access.count_jobs(session, project_id, JobStatus.QUEUED),
        num_running=access.count_jobs(session, project_id, JobStatus.RUNNING),
    )
