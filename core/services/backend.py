"""What every use case works with: one database, one object store, one queue."""

from dataclasses import dataclass

from core.database.session import Database
from core.queue import WakeQueue
from core.settings import Settings
from core.storage.object_store import ObjectStore


@dataclass(frozen=True, kw_only=True)
class Backend:
    settings: Settings
    database: Database
    store: ObjectStore
    queue: WakeQueue

    def close(self) -> None:
        self.database.close()
