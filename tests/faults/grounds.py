"""Servers and templates that all fault runs of a process share."""

import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from faults import audit
from faults.trainers import Expected
from servers import PostgresServer, RedisServer, S3Server, run_postgresql, run_redis, run_s3

from core.database.engine import open_engine
from core.database.migrate import upgrade
from core.database.session import Database

if TYPE_CHECKING:
    from faults.world import World


@dataclass
class Grounds:
    """Servers and templates that all runs share; each is started when first needed."""

    folder: Path
    _stack: ExitStack = field(default_factory=ExitStack)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _migrating: threading.Lock = field(default_factory=threading.Lock)
    _postgresql: PostgresServer | None = None
    _redis: RedisServer | None = None
    _s3: S3Server | None = None
    _number: int = 0
    num_apis: int = 1
    """API processes behind one address, in the rows that start an API."""
    passes: dict[tuple[str, int], dict[str, int]] = field(default_factory=dict)
    """How often an undisturbed run comes by each failpoint, by trainer and combination; see `faults.kills`."""
    counting: threading.Lock = field(default_factory=threading.Lock)
    worlds: dict[int, "World"] = field(default_factory=dict)
    """The newest of each thread."""
    results: dict[int | str, Expected] = field(default_factory=dict)
    """Of undisturbed runs of the real trainer; see `faults.real_trainer`."""
    training: threading.RLock = field(default_factory=threading.RLock)

    def migrate(self, url: str) -> None:
        """One at a time: Alembic keeps its context in globals."""
        with self._migrating:
            upgrade(url)

    @classmethod
    @contextmanager
    def open(cls) -> Iterator[Self]:
        folder = Path(tempfile.mkdtemp(prefix="preftune-faults-"))
        grounds = cls(folder)
        try:
            with grounds._stack:
                yield grounds
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @property
    def postgresql(self) -> PostgresServer:
        with self._lock:
            if self._postgresql is None:
                server = self._stack.enter_context(run_postgresql(max_connections="400", wal_keep_size="512MB"))
                self.migrate(server.create_database("template_faults"))
                database = Database(open_engine(server.url("template_faults")))
                audit.install(database)
                database.close()
                self._postgresql = server
            return self._postgresql

    @property
    def redis(self) -> RedisServer:
        with self._lock:
            if self._redis is None:
                self._redis = self._stack.enter_context(run_redis())
            return self._redis

    @property
    def s3(self) -> S3Server:
        with self._lock:
            if self._s3 is None:
                self._s3 = self._stack.enter_context(run_s3())
            return self._s3

    def sqlite_template(self) -> Path:
        path = self.folder / "template.db"
        with self._lock:
            if not path.exists():
                self.migrate(f"sqlite:///{path}")
                database = Database(open_engine(f"sqlite:///{path}"))
                audit.install(database)
                database.close()
        return path

    def next_number(self) -> int:
        with self._lock:
            self._number += 1
            return self._number
