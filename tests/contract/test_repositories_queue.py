"""The order of the queue: what `queue_position` says is what claims do, on both databases."""

import os
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest
from backends import PROJECT, add_dataset, claim, submit
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from core.database.columns import database_after
from core.database.repositories import queue
from core.database.repositories.jobs import lock_job
from core.database.repositories.positions import queue_positions
from core.database.schema import JOB_TABLES
from core.database.tables.access import ProjectLimits
from core.database.tables.jobs import Job
from core.domain.jobs.failure_codes import FailureCode
from core.domain.jobs.job_state import JobStatus
from core.services.access import projects
from core.services.access.projects import Limits
from core.services.attempts import lifecycle
from core.services.attempts.claimed_job import ClaimedJob
from core.services.backend import Backend
from core.services.ids import new_id
from core.services.jobs import jobs

NAMES = (PROJECT, "a", "b", "c")
MAX_EXAMPLES = int(os.environ.get("QUEUE_EXAMPLES", "25"))
FEW = settings(max_examples=MAX_EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@dataclass(frozen=True)
class Row:
    project: str
    priority: int


rows = st.builds(Row, st.sampled_from(NAMES), st.sampled_from((0, 0, 0, 7, -3)))


@pytest.fixture
def template(backend: Backend) -> dict[str, Any]:
    """A queued job's columns, with a project for each name."""
    add_dataset(backend)
    for name in NAMES[1:]:
        projects.create(backend, name)
    job_id = submit(backend).id
    table = Job.__table__
    statement = select(table).where(table.c.id == job_id)
    return dict(backend.database.read(lambda session: session.execute(statement).mappings().one()))


def refill(backend: Backend, template: dict[str, Any], wanted: list[Row], *, waits: float = 0.0) -> list[str]:
    """Exactly these jobs, all queued, in the order of their age; the last `waits` for so many seconds."""
    names = {column.name: template[column.name] for column in Job.__table__.columns}
    ids = [new_id("job") for _ in wanted]

    def work(session: Session) -> None:
        for table in (*JOB_TABLES, Job, ProjectLimits):
            session.execute(table.__table__.delete())
        copies = [
            names | {"id": job_id, "project_id": row.project, "priority": row.priority}
            for job_id, row in zip(ids, wanted, strict=True)
        ]
        if copies:
            session.execute(insert(Job.__table__), copies)
        if waits and ids:
            delayed = Job.__table__.update().where(Job.id == ids[-1])
            session.execute(delayed.values(next_run_at=database_after(waits)))

    backend.database.write(work)
    return ids


def positions(backend: Backend, job_ids: set[str] | None = None) -> dict[str, int]:
    def work(session: Session) -> dict[str, int]:
        found = session.scalars(select(Job).where(Job.status == JobStatus.QUEUED)).all()
        return queue_positions(session, [job for job in found if job_ids is None or job.id in job_ids])

    return backend.database.read(work)


def next_claim(backend: Backend) -> ClaimedJob | None:
    return lifecycle.claim(backend, worker="w", host="h", device="cpu")


def expected_next(queued: dict[str, Row], running: Counter[str], limits: dict[str, int]) -> str | None:
    """The rule in words of Python; ids are in the order of age."""
    free = {job_id: row for job_id, row in queued.items() if running[row.project] < limits.get(row.project, 999)}
    key = {job_id: (-row.priority, running[row.project], job_id) for job_id, row in free.items()}
    return min(key, key=key.__getitem__) if key else None


@FEW
@given(wanted=st.lists(rows, max_size=14), ended=st.lists(st.booleans(), max_size=14), num_first=st.integers(0, 14))
def test_jobs_are_claimed_in_the_order_of_their_positions(
    backend: Backend, template: dict[str, Any], wanted: list[Row], ended: list[bool], num_first: int
) -> None:
    refill(backend, template, wanted)
    first = [held for _ in range(min(num_first, len(wanted))) if (held := next_claim(backend))]
    for held, is_ended in zip(first, ended, strict=False):
        if is_ended:
            lifecycle.finish_failed(held, FailureCode.BAD_DATA, "x")

    told = positions(backend)
    assert sorted(told.values()) == list(range(1, len(wanted) - len(first) + 1))
    some = set(list(told)[::3])
    assert positions(backend, some) == {job_id: told[job_id] for job_id in some}
    order = []
    while held := next_claim(backend):
        order.append(held.job_id)
    assert order == sorted(told, key=told.__getitem__)


@FEW
@given(
    wanted=st.lists(rows, max_size=12),
    limits=st.dictionaries(st.sampled_from(NAMES), st.integers(0, 3)),
    ends=st.lists(st.integers(0, 4), max_size=12),
)
def test_the_project_with_the_fewest_running_jobs_is_next_within_limits(
    backend: Backend, template: dict[str, Any], wanted: list[Row], limits: dict[str, int], ends: list[int]
) -> None:
    queued = dict(zip(refill(backend, template, wanted), wanted, strict=True))
    for name, limit in limits.items():
        projects.set_limits(backend, name, Limits(max_running_jobs=limit))
    running: Counter[str] = Counter()
    live: list[ClaimedJob] = []
    for which in (*ends, 0, 0):
        expected = expected_next(queued, running, limits)
        held = next_claim(backend)
        assert (held.job_id if held else None) == expected
        if held:
            del queued[held.job_id]
            running[held.project_id] += 1
            live.append(held)
        if which < len(live):
            done = live.pop(which)
            lifecycle.finish_failed(done, FailureCode.BAD_DATA, "x")
            running[done.project_id] -= 1


def test_a_project_that_posts_many_jobs_does_not_make_others_wait(backend: Backend, template: dict[str, Any]) -> None:
    ids = refill(backend, template, [Row(PROJECT, 0)] * 30 + [Row("a", 0)] * 2)
    assert jobs.get(backend, "a", ids[30]).queue_position == 2
    assert [claim(backend).job_id for _ in range(5)] == [ids[0], ids[30], ids[1], ids[31], ids[2]]


def test_a_higher_priority_goes_before_every_turn(backend: Backend, template: dict[str, Any]) -> None:
    ids = refill(backend, template, [Row("a", 0), Row(PROJECT, 1), Row(PROJECT, 1), Row(PROJECT, 0)])
    assert positions(backend) == {ids[1]: 1, ids[2]: 2, ids[0]: 3, ids[3]: 4}
    assert [claim(backend).job_id for _ in ids] == [ids[1], ids[2], ids[0], ids[3]]


def test_a_job_that_is_not_due_is_passed_over_and_keeps_its_position(
    backend: Backend, template: dict[str, Any]
) -> None:
    ids = refill(backend, template, [Row(PROJECT, 0), Row("a", 7)], waits=60)
    assert positions(backend) == {ids[1]: 1, ids[0]: 2}
    assert claim(backend).job_id == ids[0]
    assert next_claim(backend) is None


def test_claims_under_way_are_passed_over_in_turn(backend: Backend, template: dict[str, Any]) -> None:
    if not backend.database.is_postgresql:
        pytest.skip("SQLite has one writer at a time")
    ids = refill(backend, template, [Row(PROJECT, 0), Row(PROJECT, 0), Row("a", 0), Row("a", 0)])

    def while_held(session: Session, held: list[str]) -> str:
        for job_id in held:
            assert lock_job(session, job_id)
        other = claim(backend)
        lifecycle.release(other, lifecycle.AttemptOutcome.DRAINED)
        return other.job_id

    for held, expected in (([0], 2), ([0, 2], 1), ([0, 1, 2], 3)):
        locked = [ids[number] for number in held]
        taken = backend.database.write(lambda session, locked=locked: while_held(session, locked))  # type: ignore[misc]
        assert taken == ids[expected]
    everything = backend.database.write(
        lambda session: [lock_job(session, job_id) for job_id in ids] and next_claim(backend)
    )
    assert everything is None


def test_the_last_place_of_a_project_that_is_gone_is_no_place(
    backend: Backend, template: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = refill(backend, template, [Row(PROJECT, 0), Row("a", 0)])
    projects.set_limits(backend, PROJECT, Limits(max_running_jobs=1))
    monkeypatch.setattr(queue, "_may_run_another", lambda session, project_id: project_id != PROJECT)
    assert claim(backend).job_id == ids[1]
    assert next_claim(backend) is None
