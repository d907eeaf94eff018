"""What a transaction promises on both databases: snapshots, exclusion, patience with a database briefly away."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from backends import PROJECT, add_dataset, claim, point, submit
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Session

from core.database import session as session_module
from core.database.session import MAX_TRIES, Database, DatabaseUnavailable
from core.domain.errors import Conflict
from core.services.attempts import recording
from core.services.backend import Backend
from core.services.jobs import jobs


def count_jobs(session: Session) -> int:
    return int(session.scalar(text("SELECT count(*) FROM jobs")))


def test_a_reader_sees_one_moment(backend: Backend) -> None:
    add_dataset(backend)
    submit(backend)

    def work(session: Session) -> tuple[int, int]:
        before = count_jobs(session)
        with ThreadPoolExecutor(1) as other:
            other.submit(submit, backend).result()
        return before, count_jobs(session)

    assert backend.database.read(work) == (1, 1)
    assert backend.database.read(count_jobs) == 2


def test_writers_of_one_job_follow_each_other(backend: Backend) -> None:
    """Six threads record points of one attempt; no number is given out twice or left out."""
    add_dataset(backend)
    job_id = submit(backend).id
    held = claim(backend)
    barrier = threading.Barrier(6)

    def work(number: int) -> None:
        barrier.wait()
        for step in range(number * 5, number * 5 + 5):
            recording.record_points(held, [point(step)])

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    seqs = backend.database.read(
        lambda session: list(session.scalars(text("SELECT seq FROM metric_points ORDER BY seq")))
    )
    assert seqs == list(range(1, 31))
    assert jobs.list_heads(backend, [job_id])[job_id].last_metric_seq == 30


def test_what_raises_leaves_no_trace(database: Database) -> None:
    def work(session: Session) -> None:
        session.execute(text("INSERT INTO garbage VALUES ('a/', 'default', 'test', '2026-01-01 00:00:00.000')"))
        raise Conflict("no")

    with pytest.raises(Conflict):
        database.write(work)
    assert database.read(lambda session: session.scalar(text("SELECT count(*) FROM garbage"))) == 0


def fail_first(times: int, error: Exception) -> tuple[Callable[[Session], str], list[int]]:
    """A unit of work that fails so often before it answers."""
    tries: list[int] = []

    def work(session: Session) -> str:
        tries.append(1)
        if len(tries) <= times:
            raise error
        return str(session.scalar(text("SELECT 'done'")))

    return work, tries


class Transient(Exception):
    sqlstate = "40001"


class Final(Exception):
    sqlstate = "42P01"


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "_FIRST_PAUSE_SECONDS", 0.0)


@pytest.mark.usefixtures("no_pauses")
def test_a_database_that_was_briefly_away_is_tried_again(database: Database) -> None:
    work, tries = fail_first(MAX_TRIES - 1, OperationalError("BEGIN", {}, Transient()))
    assert database.write(work) == "done"
    assert len(tries) == MAX_TRIES


@pytest.mark.usefixtures("no_pauses")
def test_patience_has_a_bound(database: Database) -> None:
    work, tries = fail_first(MAX_TRIES, OperationalError("BEGIN", {}, Transient()))
    with pytest.raises(DatabaseUnavailable):
        database.read(work)
    assert len(tries) == MAX_TRIES


@pytest.mark.usefixtures("no_pauses")
def test_what_will_not_pass_is_not_repeated(database: Database) -> None:
    work, tries = fail_first(1, OperationalError("SELECT", {}, Final()))
    with pytest.raises(DatabaseUnavailable):
        database.write(work)
    work, tries = fail_first(1, IntegrityError("INSERT", {}, Final()))
    with pytest.raises(IntegrityError):
        database.write(work)
    assert len(tries) == 1


def test_a_killed_connection_is_replaced(database: Database) -> None:
    if not database.is_postgresql:
        pytest.skip("SQLite has no connection to kill")
    tries: list[int] = []

    def work(session: Session) -> int:
        tries.append(int(session.scalar(text("SELECT pg_backend_pid()"))))
        if len(tries) == 1:
            with database.engine.connect() as other:
                other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": tries[0]})
        return int(session.scalar(text("SELECT 7")))

    assert database.write(work) == 7
    assert tries[0] != tries[1]


@pytest.mark.parametrize(
    ("statement", "rule"),
    [
        ("UPDATE jobs SET status = 'running'", "lease"),
        ("UPDATE jobs SET status = 'succeeded'", "finished"),
        ("UPDATE jobs SET finished_at = created_at", "finished"),
        ("UPDATE jobs SET status = 'failed', finished_at = created_at", "failed_has_code"),
        ("UPDATE jobs SET lease_owner = 'w'", "lease"),
        ("UPDATE jobs SET desired = 'cancel'", "queued_is_wanted"),
        ("UPDATE jobs SET status = 'asleep'", "status"),
        ("UPDATE jobs SET attempt = 1", "started"),
    ],
)
def test_the_database_itself_refuses_contradictions(backend: Backend, statement: str, rule: str) -> None:
    add_dataset(backend)
    submit(backend)
    with pytest.raises(IntegrityError, match=rule):
        backend.database.write(lambda session: session.execute(text(statement)))


def test_rows_are_bound_to_what_they_belong_to(backend: Backend) -> None:
    add_dataset(backend)
    submit(backend)
    for statement in ("DELETE FROM jobs", "UPDATE jobs SET project_id = 'nowhere'"):
        with pytest.raises(IntegrityError):
            backend.database.write(lambda session, statement=statement: session.execute(text(statement)))  # type: ignore[misc]


def test_text_of_any_kind_goes_in_and_out(backend: Backend) -> None:
    add_dataset(backend)
    odd = "ünïcødé 漢字 😀 'quote' \"double\" \\ % : \n\t"
    job = submit(backend, name="odd: 漢字 😀 '\"\\ %", metadata={odd.strip().replace("\n\t", ""): odd})
    found = jobs.get(backend, PROJECT, job.id)
    assert found.name == "odd: 漢字 😀 '\"\\ %"
    assert list(found.metadata.values()) == [odd]


def test_times_are_the_databases_and_utc(backend: Backend) -> None:
    add_dataset(backend)
    created = submit(backend).created_at
    offset = created.utcoffset()
    assert offset is not None
    assert offset.total_seconds() == 0
    assert abs(datetime.now(UTC) - created) < timedelta(seconds=30)
