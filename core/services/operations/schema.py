"""Schema of the database, for operators and starting processes."""

from core.database import migrate
from core.services.backend import Backend
from core.settings import Settings


def upgrade(settings: Settings) -> None:
    """Bring the configured database to this version's schema. Raises Unavailable."""
    migrate.upgrade(settings.effective_database_url)


def is_current(backend: Backend) -> bool:
    """Whether the database has this version's schema. Raises Unavailable."""
    return migrate.is_current(backend.database.engine)
