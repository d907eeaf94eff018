"""Dead leases, wishes of dead workers and wake-ups: what the sweeper does, on both databases."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from backends import (
    LEASE_SECONDS,
    PROJECT,
    add_dataset,
    checkpoint,
    claim,
    lose,
    make_due,
    status,
    submit,
)
from sqlalchemy import text
from sqlalchemy.orm import Session

from core.database.repositories import attempts as attempt_rows
from core.database.repositories import garbage
from core.database.repositories import jobs as job_rows
from core.domain.jobs.failure_codes import FailureCode
from core.domain.jobs.job_state import MAX_CRASHES, AttemptOutcome
from core.services.attempts import lifecycle, requeue
from core.services.backend import Backend
from core.services.jobs import steering
from core.services.operations import sweep
from core.services.operations.sweep import Lease, LeaseWatch, Sweeper, expire, list_leases
from core.storage.object_store import ObjectInfo


@pytest.fixture(autouse=True)
def dataset(backend: Backend) -> str:
    return add_dataset(backend)


def test_a_lease_is_dead_only_when_one_watcher_saw_it_still_for_its_whole_length() -> None:
    watch = LeaseWatch(60.0)
    lease = Lease(job_id="job_1", attempt=1, heartbeat_seq=7)
    beat = Lease(job_id="job_1", attempt=1, heartbeat_seq=8)
    for now in range(1000, 1060, 5):
        assert watch.observe({lease: True}, now=now) == []
    assert watch.observe({lease: False}, now=1061.0) == [], "the database must agree"
    assert watch.observe({lease: True}, now=1061.0) == [lease]
    assert watch.observe({beat: True}, now=1062.0) == []
    assert watch.observe({}, now=1063.0) == []
    for now in range(1064, 1124, 5):
        assert watch.observe({beat: True}, now=now) == [], "seen anew"


def test_an_outage_between_two_looks_is_no_time_in_which_a_worker_was_silent() -> None:
    """The worker could not beat either, and gets its time when the database is back."""
    watch = LeaseWatch(60.0)
    lease = Lease(job_id="job_1", attempt=1, heartbeat_seq=7)
    watch.observe({lease: False}, now=1000.0)
    watch.observe({lease: False}, now=1005.0)
    back = 1305.0
    for seconds in range(0, 40, 5):
        assert watch.observe({lease: True}, now=back + seconds) == []
    assert watch.observe({lease: True}, now=back + 40) == [lease], "5 s before, 15 s of the outage, 40 s after it"


def test_the_sweeper_gives_a_dead_workers_job_to_the_next(backend: Backend) -> None:
    job_id = submit(backend).id
    dead = claim(backend, "dead")
    checkpoint(backend, dead, 1)
    sweeper = Sweeper(backend)
    started = time.monotonic()
    while status(backend, job_id) == "running" and time.monotonic() < started + 10:
        sweeper.sweep()
        time.sleep(0.02)
    assert status(backend, job_id) == "queued"
    assert time.monotonic() - started >= LEASE_SECONDS
    assert claim(backend).attempt == 2
    outcome = backend.database.read(lambda session: attempt_rows.find_outcome(session, job_id, dead.token))
    assert outcome is AttemptOutcome.LOST


def test_the_sweeper_leaves_a_worker_alone_that_beats(backend: Backend) -> None:
    job_id = submit(backend).id
    held = claim(backend)
    sweeper = Sweeper(backend)
    until = time.monotonic() + 3 * LEASE_SECONDS
    while time.monotonic() < until:
        lifecycle.heartbeat(held)
        sweeper.sweep()
        time.sleep(LEASE_SECONDS / 10)
    assert status(backend, job_id) == "running"


def test_an_old_lease_is_not_killed_by_a_watcher_that_just_came(backend: Backend) -> None:
    """After an outage every lease looks old: all get their whole time to beat again."""
    submit(backend)
    held = claim(backend)
    backend.database.write(lambda session: session.execute(text("UPDATE jobs SET lease_expires_at = created_at")))
    Sweeper(backend).sweep()
    assert lifecycle.heartbeat(held).desired == "run"


@pytest.mark.parametrize(("wish", "became"), [(steering.cancel, "cancelled"), (steering.pause, "paused")])
def test_the_sweeper_fulfils_wishes_of_dead_workers(backend: Backend, wish: Callable[..., Any], became: str) -> None:
    job_id = submit(backend).id
    held = claim(backend)
    wish(backend, PROJECT, job_id)
    lose(backend, held)
    assert status(backend, job_id) == became


def test_lost_leases_are_free_with_new_checkpoints_and_bounded_without(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requeue, "MAX_LOSSES", MAX_CRASHES)
    with_progress = submit(backend).id
    for step in range(1, 2 * MAX_CRASHES):
        held = claim(backend)
        checkpoint(backend, held, step)
        lose(backend, held)
    assert status(backend, with_progress) == "queued"
    lifecycle.finish_failed(claim(backend), FailureCode.INTERNAL, "enough")

    without = submit(backend).id
    for _ in range(MAX_CRASHES):
        held = claim(backend)
        lose(backend, held)
        make_due(backend)
    assert status(backend, without) == "failed"


def test_a_store_that_says_nothing_holds_up_no_lease(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listing of S3 may hold its thread for minutes: five tries of half a minute."""
    has_asked, may_answer = threading.Event(), threading.Event()

    def silent(_prefix: str) -> Iterator[ObjectInfo]:
        has_asked.set()
        may_answer.wait(60)
        return iter(())

    monkeypatch.setattr(backend.store, "list", silent)
    job_id = submit(backend).id
    claim(backend, "dead")
    backend.database.write(lambda session: garbage.add_garbage(session, PROJECT, "jobs/none/", "test"))
    settings = backend.settings.model_copy(update={"sweep_seconds": 0.05})
    sweeper = Sweeper(replace(backend, settings=settings))
    sweeper.start()
    try:
        assert has_asked.wait(10)
        started = time.monotonic()
        while status(backend, job_id) == "running" and time.monotonic() < started + 10:
            time.sleep(0.02)
        assert status(backend, job_id) == "queued"
    finally:
        may_answer.set()
        sweeper.stop()


def test_an_expiry_that_comes_after_a_beat_does_nothing(backend: Backend) -> None:
    job_id = submit(backend).id
    held = claim(backend)
    seen = next(iter(list_leases(backend)))
    lifecycle.heartbeat(held)
    assert expire(backend, seen) is False
    assert status(backend, job_id) == "running"


def test_the_sweeper_does_not_wait_for_a_worker_frozen_inside_a_transaction(backend: Backend) -> None:
    if not backend.database.is_postgresql:
        pytest.skip("SQLite locks no rows")
    first, second = submit(backend).id, submit(backend).id
    claim(backend, "frozen")
    claim(backend, "dead")
    leases = {lease.job_id: lease for lease in list_leases(backend)}

    def frozen(session: Session) -> list[bool]:
        job_rows.lock_job(session, first)
        return [expire(backend, leases[job_id], skip_locked=True) for job_id in (first, second)]

    start = time.monotonic()
    assert backend.database.write(frozen) == [False, True]
    assert time.monotonic() - start < 5, "the lock's own limit"
    assert (status(backend, first), status(backend, second)) == ("running", "queued")
    assert expire(backend, leases[first], skip_locked=True)


def test_leases_of_a_dead_local_worker_are_freed_at_once(backend: Backend) -> None:
    mine, other = submit(backend).id, submit(backend).id
    claim(backend, "dead")
    claim(backend, "alive")
    assert sweep.release_leases_of(backend, "dead") == 1
    assert (status(backend, mine), status(backend, other)) == ("queued", "running")


@pytest.fixture
def patient(backend: Backend) -> Backend:
    """A backend whose times do not run out on a busy machine: nothing is sent again, and no lock changes hands."""
    settings = backend.settings.model_copy(update={"lease_seconds": 600, "sweep_seconds": 600})
    return replace(backend, settings=settings)


def test_only_one_sweeper_works_at_a_time_but_all_watch(patient: Backend) -> None:
    backend = patient
    submit(backend)
    first, second = Sweeper(backend), Sweeper(backend)
    backend.queue.num_wakes = 0  # type: ignore[attr-defined]
    backend.database.write(lambda session: session.execute(text("UPDATE jobs SET wake_sent_at = NULL")))
    first.sweep()
    assert backend.queue.num_wakes == 1  # type: ignore[attr-defined]
    backend.database.write(lambda session: session.execute(text("UPDATE jobs SET wake_sent_at = NULL")))
    second.sweep()
    assert backend.queue.num_wakes == 1, "the first one holds the lock"  # type: ignore[attr-defined]
    first.sweep()
    assert backend.queue.num_wakes == 2  # type: ignore[attr-defined]


def test_wakes_are_sent_again_but_not_at_every_pass_and_not_by_the_thousand(patient: Backend) -> None:
    backend = patient
    for _ in range(sweep.MAX_WAKES + 4):
        submit(backend)
    backend.database.write(lambda session: session.execute(text("UPDATE jobs SET wake_sent_at = NULL")))
    backend.queue.num_wakes = 0  # type: ignore[attr-defined]
    sweeper = Sweeper(backend)
    sweeper.sweep()
    assert backend.queue.num_wakes == sweep.MAX_WAKES  # type: ignore[attr-defined]
    sweeper.sweep()
    assert backend.queue.num_wakes == sweep.MAX_WAKES + 4  # type: ignore[attr-defined]
    sweeper.sweep()
    assert backend.queue.num_wakes == sweep.MAX_WAKES + 4  # type: ignore[attr-defined]
