from sqlalchemy import select
from sqlalchemy.orm import Session

from core.database.columns import database_now
from core.database.tables.projects import Project
from core.domain.access import DEFAULT_PROJECT_ID


def ensure_default_project(session: Session) -> None:
    if session.scalar(select(Project.id).where(Project.id == DEFAULT_PROJECT_ID)) is None:
        session.add(Project(id=DEFAULT_PROJECT_ID, name="Default", created_at=database_now()))
