"""Rates that API processes share: together they let through what one would."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from api.access.rate_limits import SharedRateLimits
from core.database.repositories import rates as rows
from core.database.session import DatabaseUnavailable
from core.services.access import browser_sessions, rates
from core.services.backend import Backend

NUM_PROCESSES = pytest.mark.parametrize("num_processes", [1, 2, 4])


class Clock:
    """The time of all processes and of the database; goes on only when told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def of_database(self, _: object) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(rows, "database_time", clock.of_database)
    return clock


def count_let_through(backend: Backend, processes: list[SharedRateLimits], per_minute: int, num_requests: int) -> int:
    async def ask() -> int:
        answers = [
            await processes[number % len(processes)].seconds_to_wait(backend, "key_1", per_minute)
            for number in range(num_requests)
        ]
        return answers.count(0)

    return asyncio.run(ask())


def test_processes_together_let_through_what_one_would(backend: Backend) -> None:
    """Ten seconds' worth at once; the clocks of the processes stand still, so that no refusal of theirs ends."""
    processes = [SharedRateLimits(lambda: 0.0) for _ in range(3)]
    assert count_let_through(backend, processes, 60, 40) in (10, 11)


@NUM_PROCESSES
def test_a_key_below_its_limit_is_never_refused(backend: Backend, clock: Clock, num_processes: int) -> None:
    """40 % of 600 a minute, four at once every 1.01 s: each process sees one request about once a second."""
    processes = [SharedRateLimits(clock) for _ in range(num_processes)]
    for _ in range(40):
        assert count_let_through(backend, processes, 600, 4) == 4
        clock.now += 1.01


@NUM_PROCESSES
def test_a_key_above_its_limit_gets_the_limit_and_what_processes_held(
    backend: Backend, clock: Clock, num_processes: int
) -> None:
    """300 % of 600 a minute for 10 s, after a rest in which the bucket filled and each process held most of a batch."""
    processes = [SharedRateLimits(clock) for _ in range(num_processes)]
    assert count_let_through(backend, processes, 600, num_processes) == num_processes
    clock.now += 60
    let_through = 0
    for _ in range(50):
        let_through += count_let_through(backend, processes, 600, 6)
        clock.now += 0.2
    limit = 100 + 10 * 10
    assert limit <= let_through <= limit + 10 * num_processes


def test_a_lowered_limit_holds_for_what_a_process_kept(backend: Backend, clock: Clock) -> None:
    """Nine tokens kept of a batch of ten are cut to one; nine are left in the smaller bucket."""
    processes = [SharedRateLimits(clock)]
    assert count_let_through(backend, processes, 600, 1) == 1
    assert count_let_through(backend, processes, 60, 20) == 10


def test_an_empty_bucket_fills_again(backend: Backend) -> None:
    assert rates.withdraw(backend, "key_2", 6).num_tokens == 1
    refused = rates.withdraw(backend, "key_2", 6)
    assert (refused.num_tokens, 8 < refused.seconds <= 10) == (0, True)
    earlier = "UPDATE rate_buckets SET full_at = (SELECT min(created_at) FROM projects)"
    backend.database.write(lambda session: session.execute(text(earlier)))
    assert rates.withdraw(backend, "key_2", 6).num_tokens == 1


def test_full_buckets_are_forgotten(backend: Backend) -> None:
    rates.withdraw(backend, "key_3", 1)
    rates.withdraw(backend, "user:" + "long" * 50, 60_000)
    earlier = "UPDATE rate_buckets SET full_at = (SELECT min(created_at) FROM projects) WHERE key_id <> 'key_3'"
    backend.database.write(lambda session: session.execute(text(earlier)))
    rates.forget_full(backend)
    left = backend.database.read(lambda session: session.scalars(text("SELECT key_id FROM rate_buckets")).all())
    assert left == ["key_3"]


def test_many_at_once_get_no_more(backend: Backend) -> None:
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda _: rates.withdraw(backend, "key_4", 6).num_tokens, range(16)))
    assert sum(taken) == 1


def test_without_a_database_each_process_limits_alone(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise DatabaseUnavailable("away")

    monkeypatch.setattr(rates, "withdraw", away)
    assert count_let_through(backend, [SharedRateLimits(lambda: 0.0) for _ in range(2)], 60, 40) == 20


def test_a_sign_in_code_signs_in_once_on_all_processes(backend: Backend) -> None:
    with ThreadPoolExecutor(4) as pool:
        for letter in "abcdefgh":
            code = letter * 32
            taken = list(pool.map(lambda _, code=code: browser_sessions.take_code(backend, code, 600), range(8)))
            assert taken.count(True) == 1
