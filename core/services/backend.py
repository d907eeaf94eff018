"""The backend that every use case works with: one database, one object store, one queue."""

from dataclasses import dataclass

from core.database.engine import open_engine
from core.database.session import Database
from core.queue.celery_wake_queue import open_queue
from core.queue.wake_queue import WakeQueue
from core.settings import Settings
from core.storage.object_store import ObjectStore
from core.storage.open_store import open_store


@dataclass(frozen=True, kw_only=True)
class Backend:
    settings: Settings
    database: Database
    store: ObjectStore
    queue: WakeQueue

    def close(self) -> None:
        self.database.close()


def open_backend(settings: Settings) -> Backend:
    """Open the backend without connecting; on SQLite creates the file. `core.database.migrate` makes the schema."""
    return Backend(
        settings=settings,
        database=Database(open_engine(settings.effective_database_url, current_url=settings.current_database_url)),
        store=open_store(settings),
        queue=open_queue(settings),
    )
