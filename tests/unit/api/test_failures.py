"""Throttle of wrong keys: by address, for all together, and in bounded memory."""

from api.access.failures import MAX_KEPT, Bounds, FailureThrottle


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_address_gets_a_burst_and_then_one_by_one() -> None:
    clock = Clock()
    throttle = FailureThrottle(Bounds(burst=3, seconds=6), Bounds(burst=100, seconds=1), clock)
    assert [throttle.seconds_to_wait("203.0.113.1") for _ in range(5)] == [0, 0, 0, 6, 6]
    assert throttle.seconds_to_wait("203.0.113.2") == 0
    clock.now = 6.0
    assert [throttle.seconds_to_wait("203.0.113.1") for _ in range(2)] == [0, 6]


def test_those_who_succeed_are_not_counted() -> None:
    throttle = FailureThrottle(Bounds(burst=2, seconds=6), Bounds(burst=2, seconds=6), Clock())
    for _ in range(10):
        assert throttle.seconds_to_wait("203.0.113.1") == 0
        throttle.give_back("203.0.113.1")


def test_many_addresses_together_are_bounded_in_number_and_memory() -> None:
    throttle = FailureThrottle(Bounds(burst=3, seconds=6), Bounds(burst=50, seconds=1), Clock())
    answers = [throttle.seconds_to_wait(f"198.51.{n // 250}.{n % 250}") for n in range(2 * MAX_KEPT)]
    assert answers.count(0) == 50
    assert len(throttle._buckets) == MAX_KEPT


def test_addresses_of_one_ipv6_subscriber_are_one() -> None:
    throttle = FailureThrottle(Bounds(burst=1, seconds=6), Bounds(burst=50, seconds=1), Clock())
    assert throttle.seconds_to_wait("2001:db8:0:1::1") == 0
    assert throttle.seconds_to_wait("2001:db8:0:1:ffff::2") == 6
    assert throttle.seconds_to_wait("2001:db8:0:2::1") == 0
