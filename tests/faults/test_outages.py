"""Zombies, races, outages, full disks, storms and drains, a few of each; many: `make test-faults`."""

import time
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest
from faults.grounds import Grounds
from faults.proxy import FaultProxy
from faults.share import run_share
from sqlalchemy import text

from core.database import patient_connection
from core.database.engine import open_engine
from core.database.session import Database, DatabaseUnavailable

pytestmark = pytest.mark.timeout(600)  # on a busy machine


@pytest.fixture(scope="module")
def grounds() -> Iterator[Grounds]:
    with Grounds.open() as opened:
        yield opened


def test_a_half_open_database_does_not_hold_a_thread(grounds: Grounds, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection stands and says nothing: the driver alone would wait for ever."""
    monkeypatch.setattr(patient_connection, "MAX_ANSWER_SECONDS", 0.5)
    server = grounds.postgresql
    with FaultProxy(server.port) as proxy:
        url = f"postgresql://postgres@127.0.0.1:{proxy.port}/template1"
        with closing(Database(open_engine(url))) as database:
            assert database.read(lambda session: session.scalar(text("SELECT 1"))) == 1
            proxy.is_half_open = True
            start = time.monotonic()
            with pytest.raises(DatabaseUnavailable):
                database.read(lambda session: session.scalar(text("SELECT 2")))
            assert time.monotonic() - start < 30  # a try on what stands, and three to connect anew
            proxy.is_half_open = False
            assert database.read(lambda session: session.scalar(text("SELECT 3"))) == 3


def test_a_process_frozen_between_two_rows_does_not_keep_its_locks(grounds: Grounds) -> None:
    """The server's limit for idle transactions counts only outside of a pipeline."""
    url = grounds.postgresql.url("template1")
    state = "SELECT state FROM pg_stat_activity WHERE pid = %s"
    seen = []
    with closing(Database(open_engine(url))) as database, psycopg.connect(url, autocommit=True) as watcher:
        connection = database.engine.raw_connection()
        driver_connection = connection.driver_connection
        assert isinstance(driver_connection, psycopg.Connection)
        pid = driver_connection.info.backend_pid

        def rows() -> Iterator[tuple[int]]:
            for number in range(3):
                yield (number,)
                seen.extend(watcher.execute(state, (pid,)).fetchall())

        connection.cursor().executemany("SELECT %s::int", rows())  # type: ignore[arg-type]
        connection.close()
    assert seen == [("idle in transaction",)] * 3


@pytest.mark.parametrize(
    ("row", "seeds", "at_least"),
    [
        ("zombies", (0, 1, 2, 3), 3),
        ("races", (0, 1), 100),
        ("broker", (0, 1, 6, 7), 4),
        ("database", (2,), 1),
        ("store", (0, 1, 3, 4, 5), 5),
        ("disks", (0, 1, 2, 3), 4),
        ("storms", (0, 1), 100),
        ("drains", (0,), 3),
    ],
)
def test_a_share_of(grounds: Grounds, row: str, seeds: tuple[int, ...], at_least: int) -> None:
    run_share(grounds, row, seeds, at_least)
