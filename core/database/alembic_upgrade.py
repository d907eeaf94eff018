"""Migration by alembic, a module of its own: it is loaded where the schema changes, not in every process that looks."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection

from core.settings import SettingsError


def to_revision(connection: Connection, revision: str, migrations: Path) -> None:
    """Bring the schema up to a revision, in the connection's transaction. Raises SettingsError for an unknown one."""
    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, revision)
    except CommandError:
        raise SettingsError(
            "The database's schema is of a newer version of preftune than this one; install that version."
        ) from None
