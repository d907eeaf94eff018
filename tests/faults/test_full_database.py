"""SQLite on a full disk: what cannot be written is an outage, nothing is half written, and the worker waits it out."""

import sqlite3
from typing import Any

import pytest
from sqlalchemy import event, text
from toy_jobs import InProcessWorker, attempts_of, check_succeeded, submit_toy, wait_for, wait_for_status, wait_for_step
from toy_trainer import Script

from core.database.session import DatabaseUnavailable
from core.services.backend import Backend

NO_LIMIT = 2**30


class Disk:
    """Takes no page more while it is full: SQLite then says what it says on a disk without space."""

    def __init__(self, backend: Backend) -> None:
        self.is_full = False
        self.num_refusals = 0
        backend.database.engine.dispose()
        event.listen(backend.database.engine, "checkout", self._limit)
        event.listen(backend.database.engine, "handle_error", self._count)

    def _limit(self, connection: sqlite3.Connection, *_: object) -> None:
        (num_pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {num_pages if self.is_full else NO_LIMIT}")

    def _count(self, context: Any) -> None:
        self.num_refusals += "disk is full" in str(context.original_exception)


def write_much(backend: Backend) -> None:
    statement = text("INSERT INTO filler SELECT zeroblob(4000) FROM (VALUES (1), (2), (3), (4), (5), (6), (7), (8))")
    backend.database.write(lambda session: session.execute(statement))


def test_a_full_disk_under_sqlite_is_waited_out(backend: Backend) -> None:
    backend.database.write(lambda session: session.execute(text("CREATE TABLE filler (content BLOB)")))
    disk = Disk(backend)
    script = Script(steps=60, step_seconds=0.02, checkpoint_every=5)
    with InProcessWorker(backend):
        job_id = submit_toy(backend, script)
        wait_for_step(backend, job_id, "sft", 2)
        disk.is_full = True
        with pytest.raises(DatabaseUnavailable):
            write_much(backend)
        seen = disk.num_refusals
        wait_for(lambda: disk.num_refusals > seen, "the worker to meet the full disk")
        disk.is_full = False
        wait_for_status(backend, job_id, "succeeded", "failed")
    check_succeeded(backend, job_id, script)
    assert [attempt.outcome and attempt.outcome.value for attempt in attempts_of(backend, job_id)] == ["succeeded"]
    count = text("SELECT count(*) FROM filler")
    assert backend.database.read(lambda session: session.scalar(count)) == 0
    write_much(backend)
    assert backend.database.read(lambda session: session.scalar(count)) == 8
