"""Alembic's entry point: uses the connection it is given, else the database of the settings."""

from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import Connection

from core.database.columns import Timestamp
from core.database.engine import WRITES, open_engine
from core.database.schema import metadata
from core.settings import load_settings


def render_item(kind: str, item: Any, autogen_context: AutogenContext) -> str | Literal[False]:
    """Render our own column types by name, so that migrations read as the tables do."""
    if kind == "type" and isinstance(item, Timestamp):
        autogen_context.imports.add("from core.database.columns import Timestamp")
        return "Timestamp()"
    return False


def run(connection: Connection) -> None:
    # On SQLite too, where our engine begins transactions itself.
    context.configure(connection=connection, target_metadata=metadata, render_item=render_item, transactional_ddl=True)
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    engine = open_engine(load_settings().effective_database_url).execution_options(**{WRITES: True})
    with engine.begin() as connection:
        run(connection)
