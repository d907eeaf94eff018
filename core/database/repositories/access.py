"""Rows of keys, projects and their limits."""

from sqlalchemy import ColumnElement, func, literal, or_, select, update
from sqlalchemy.orm import Session

from core.database.columns import database_after, database_now
from core.database.tables.access import ApiKey, ProjectLimits, StoredScope
from core.database.tables.jobs import Job
from core.database.tables.projects import Project
from core.domain.jobs.job_state import JobStatus


def find_key(session: Session, key_id: str) -> ApiKey | None:
    return session.get(ApiKey, key_id, populate_existing=True)


def lock_key(session: Session, key_id: str) -> ApiKey | None:
    return session.get(ApiKey, key_id, with_for_update=True, populate_existing=True)


def is_live(session: Session, key_id: str) -> bool:
    """Condition that a key is neither revoked nor expired, by the database's clock."""
    return session.scalar(select(ApiKey.id).where(ApiKey.id == key_id, *_live())) is not None


def has_key(session: Session) -> bool:
    """Whether there ever was a key, dead ones included."""
    return session.scalar(select(ApiKey.id).limit(1)) is not None


def lasts(session: Session, seconds: float) -> bool:
    """Whether a key works now and will still work after these seconds."""
    is_long = ApiKey.expires_at.is_(None) | (ApiKey.expires_at > database_after(seconds))
    return session.scalar(select(ApiKey.id).where(*_live(), is_long).limit(1)) is not None


def list_keys(session: Session, project_id: str | None) -> list[ApiKey]:
    """Return keys, oldest first."""
    statement = select(ApiKey).order_by(ApiKey.id)
    if project_id is not None:
        statement = statement.where(ApiKey.project_id == project_id)
    return list(session.scalars(statement))


def list_keys_before(
    session: Session, project_id: str | None, *, with_operators: bool, before: str | None, limit: int
) -> list[ApiKey]:
    """Return keys older than the id `before`, newest first."""
    statement = select(ApiKey).order_by(ApiKey.id.desc()).limit(limit)
    if project_id is not None:
        statement = statement.where(ApiKey.project_id == project_id)
    if not with_operators:
        statement = statement.where(or_(ApiKey.stored_scope != StoredScope.ADMIN, ApiKey.is_operator.is_(False)))
    if before is not None:
        statement = statement.where(ApiKey.id < before)
    return list(session.scalars(statement))


def expire_within(session: Session, key_id: str, seconds: float) -> None:
    """Let a key end after the seconds, unless it ends before."""
    is_later = ApiKey.expires_at.is_(None) | (ApiKey.expires_at > database_after(seconds))
    session.execute(update(ApiKey).where(ApiKey.id == key_id, is_later).values(expires_at=database_after(seconds)))


def is_use_unnoted(session: Session, key_id: str, within_seconds: float) -> bool:
    """Whether the key's last recorded use is older than this."""
    is_old = ApiKey.last_used_at.is_(None) | (ApiKey.last_used_at < database_after(-within_seconds))
    return session.scalar(select(ApiKey.id).where(ApiKey.id == key_id, is_old)) is not None


def note_use(session: Session, key_id: str) -> None:
    statement = update(ApiKey).where(ApiKey.id == key_id).values(last_used_at=database_now())
    session.execute(statement.execution_options(synchronize_session=False))


def find_project(session: Session, project_id: str) -> Project | None:
    return session.get(Project, project_id)


def list_projects(session: Session) -> list[Project]:
    return list(session.scalars(select(Project).order_by(Project.id)))


def find_limits(session: Session, project_id: str) -> ProjectLimits | None:
    return session.get(ProjectLimits, project_id, populate_existing=True)


def lock_limits(session: Session, project_id: str) -> ProjectLimits | None:
    """Lock a project's limits, so that two cannot both take the last place under one."""
    return session.get(ProjectLimits, project_id, with_for_update=True, populate_existing=True)


def count_jobs(session: Session, project_id: str, status: JobStatus) -> int:
    # Spelled out: indexes of the queued and of the running are not used for a status that is told only later.
    is_counted = Job.status == literal(status, literal_execute=True)
    statement = select(func.count()).select_from(Job).where(Job.project_id == project_id, is_counted)
    return session.scalar(statement) or 0


def _live() -> tuple[ColumnElement[bool], ...]:
    return (ApiKey.revoked_at.is_(None), ApiKey.expires_at.is_(None) | (ApiKey.expires_at > database_now()))
