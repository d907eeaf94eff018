"""Hold on the collector of garbage while a backup is made, renewed beside it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import structlog
from sqlalchemy.orm import Session

from core.database.repositories import backups as rows
from core.domain.errors import Unavailable
from core.services.backend import Backend
from core.services.ids import new_suffix
from core.services.transactions import writes

HOLD_SECONDS = 120.0
"""A backup whose process has died holds the collector for so long."""

_log = structlog.get_logger(__name__)


@contextmanager
def garbage_held(backend: Backend) -> Iterator[None]:
    """Keep every object in the store that a row names now or later, until the block ends. Raises Unavailable."""
    token, is_over = new_suffix(), threading.Event()

    def renew() -> None:
        while not is_over.wait(HOLD_SECONDS / 6):
            try:
                _hold(backend, token)
            except Unavailable as error:
                _log.warning("backup_hold_not_renewed", reason=error.detail)

    _hold(backend, token)
    thread = threading.Thread(target=renew, name="backup hold", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
        with suppress(Unavailable):  # it ends by itself
            backend.database.write(lambda session: rows.release_garbage(session, token))


@writes
def _hold(session: Session, token: str) -> None:
    rows.hold_garbage(session, token, HOLD_SECONDS)
