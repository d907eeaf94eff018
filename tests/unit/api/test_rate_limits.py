"""Buckets of tokens: so much at once, then at the rate, each key for itself, and no more buckets than is bounded."""

from api.access import rate_limits
from api.access.rate_limits import RateLimits


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_then_the_rate() -> None:
    clock = Clock()
    limits = RateLimits(clock)
    assert [limits.seconds_to_wait("a", 120) for _ in range(21)] == [0] * 20 + [1]
    clock.now += 0.5
    assert limits.seconds_to_wait("a", 120) == 0
    assert limits.seconds_to_wait("a", 120) == 1
    assert limits.seconds_to_wait("b", 120) == 0
    clock.now += 3600
    assert [limits.seconds_to_wait("a", 120) for _ in range(21)] == [0] * 20 + [1]


def test_a_slow_rate_says_how_long() -> None:
    clock = Clock()
    limits = RateLimits(clock)
    assert limits.seconds_to_wait("a", 1) == 0
    assert limits.seconds_to_wait("a", 1) == 60
    clock.now += 45
    assert limits.seconds_to_wait("a", 1) == 15


def test_the_number_of_buckets_is_bounded() -> None:
    limits = RateLimits(Clock())
    for number in range(rate_limits.MAX_KEPT + 10):
        limits.seconds_to_wait(str(number), 60)
    assert len(limits._buckets) == rate_limits.MAX_KEPT
