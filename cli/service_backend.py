"""Database of the deployment for commands of its operator: they need its settings, not a running service."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from preftune.cli.console import fail
from preftune.cli.extras import from_extra

DATABASE_FILE: Final = "preftune.db"
"""SQLite's, in the data directory."""


def load(**overrides: Any) -> Any:
    """Return the settings; exits with code 2 and a sentence where they cannot be used."""
    error_type = from_extra("core.settings", "SettingsError")
    try:
        return from_extra("core.settings", "load_settings")(**overrides)
    except error_type as error:
        fail(str(error), code=2)


def require_data(settings: Any) -> None:
    """Exit where a command would read a data directory that no service has used: none is created unasked."""
    if settings.database_url is not None or (settings.data_dir / DATABASE_FILE).exists():
        return
    fail(
        f"no service has used the data directory {settings.data_dir.resolve()} yet. Name the one that `preftune serve` "
        "was given: --data-dir, or PREFTUNE_DATA_DIR. A new one is set up by `preftune serve` or `preftune migrate`"
    )


@contextmanager
def operating(data_dir: Path | None = None, *, needs_schema: bool = True) -> Iterator[Any]:
    """Yield a backend whose errors become one sentence and an exit code.

    `needs_schema`: the database must be there, with a schema that this version works with.
    """
    settings_error = from_extra("core.settings", "SettingsError")
    domain_error = from_extra("core.domain.errors", "DomainError")
    settings = load(data_dir=data_dir)
    if needs_schema:
        require_data(settings)
    try:
        backend = from_extra("core.services.backend", "open_backend")(settings)
    except settings_error as error:
        fail(str(error), code=2)
    except domain_error as error:
        fail(error.detail)
    try:
        is_usable = from_extra("core.database.migrate", "is_usable")
        if needs_schema and not is_usable(backend.database.engine):
            fail("the database does not have this version's schema; start the service once, or run `preftune migrate`")
        audit = "core.services.access.audit"
        with from_extra(audit, "acting")(from_extra(audit, "operator_here")()):
            yield backend
    except settings_error as error:
        fail(str(error), code=2)
    except domain_error as error:
        fail(error.detail)
    finally:
        backend.close()
