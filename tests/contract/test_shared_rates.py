"""Rates that API processes share: together they let through what one would."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from api.access.rate_limits import SharedRateLimits
from core.database.session import DatabaseUnavailable
from core.services.access import browser_sessions, rates
from core.services.backend import Backend


def count_let_through(backend: Backend, processes: list[SharedRateLimits], per_minute: int, num_requests: int) -> int:
    async def ask() -> int:
        answers = [
            await processes[number % len(processes)].seconds_to_wait(backend, "key_1", per_minute)
            for number in range(num_requests)
        ]
        return answers.count(0)

    return asyncio.run(ask())


def test_processes_together_let_through_what_one_would(backend: Backend) -> None:
    """Ten seconds' worth at once; the clocks of the processes stand still, so that no batch of theirs ends."""
    processes = [SharedRateLimits(lambda: 0.0) for _ in range(3)]
    assert count_let_through(backend, processes, 60, 40) in (10, 11)


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
        taken = list(pool.map(lambda _: browser_sessions.take_code(backend, "c" * 32, 600), range(8)))
    assert taken.count(True) == 1
