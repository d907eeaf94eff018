"""Schema of the database, for operators and starting processes."""

from core.database import migrate
from core.services.backend import Backend
from core.settings import Settings


def upgrade(settings: Settings) -> None:
    """Bring the configured database to this version's schema. Raises Unavailable."""
    migrate.upgrade(settings.effective_database_url)


def is_usable(backend: Backend) -> bool:
    """Whether this version may work with the database's schema. Raises Unavailable."""
    return migrate.is_usable(backend.database.engine)
