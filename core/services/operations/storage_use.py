"""Use of the storage: who stores what, project by project."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.database.repositories import access, object_checks, usage
from core.database.tables.projects import Project
from core.services.access.projects import limits_of
from core.services.backend import Backend
from core.services.pages import page_of, read_cursor
from core.services.transactions import reads
from core.services.views import Page


@dataclass(frozen=True, kw_only=True)
class ProjectStorage:
    id: str
    stored_bytes: int
    stored: dict[str, int]
    """Bytes by what takes them: see `usage.KINDS`."""
    max_stored_bytes: int | None
    created_at: datetime


@reads
def list_storage(session: Session, project_id: str | None, *, limit: int, cursor: str | None) -> Page[ProjectStorage]:
    """Return a page of projects by id, or only the one named. Raises InvalidRequest."""
    statement = select(Project).where(Project.id > (read_cursor(cursor) or "")).order_by(Project.id).limit(limit + 1)
    if project_id is not None:
        statement = statement.where(Project.id == project_id)
    found = list(session.scalars(statement))
    return page_of(found, limit, [_storage(session, project) for project in found[:limit]])


def count_lost_objects(backend: Backend) -> int:
    """Return how many objects the store is known to have lost."""
    return backend.database.read(object_checks.count_lost)


def _storage(session: Session, project: Project) -> ProjectStorage:
    stored = usage.bytes_by_kind(session, project.id)
    return ProjectStorage(
        id=project.id,
        stored_bytes=sum(stored.values()),
        stored=stored,
        max_stored_bytes=limits_of(access.find_limits(session, project.id)).max_stored_bytes,
        created_at=project.created_at,
    )
