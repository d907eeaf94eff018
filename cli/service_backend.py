"""Database of the deployment for commands of its operator: they need its settings, not a running service."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from preftune.cli.console import fail
from preftune.cli.extras import from_extra


@contextmanager
def operating(*, needs_schema: bool = True) -> Iterator[Any]:
    """Yield a backend whose errors become one sentence and an exit code.

    `needs_schema`: the database must have a schema that this version works with.
    """
    settings_error = from_extra("core.settings", "SettingsError")
    domain_error = from_extra("core.domain.errors", "DomainError")
    try:
        settings = from_extra("core.settings", "load_settings")()
        backend = from_extra("core.services.backend", "open_backend")(settings)
    except settings_error as error:
        fail(str(error), code=2)
    except domain_error as error:
        fail(error.detail)
    try:
        is_usable = from_extra("core.database.migrate", "is_usable")
        if needs_schema and not is_usable(backend.database.engine):
            fail("the database has not this version's schema; start the service once, or run `preftune migrate`")
        audit = "core.services.access.audit"
        with from_extra(audit, "acting")(from_extra(audit, "operator_here")()):
            yield backend
    except settings_error as error:
        fail(str(error), code=2)
    except domain_error as error:
        fail(error.detail)
    finally:
        backend.close()
