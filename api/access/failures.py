"""Throttle of wrong keys: token buckets of failures, by address and for all together, in this process."""

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from api.access.shares import address_group

MAX_KEPT = 4096


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Failures at once, and seconds until one more may follow."""

    burst: int
    seconds: float


@dataclass
class _Bucket:
    tokens: float
    filled_at: float


SIGN_IN_OF_ADDRESS = Bounds(burst=10, seconds=6.0)
SIGN_IN_OF_ALL = Bounds(burst=200, seconds=0.2)
KEYS_OF_ADDRESS = Bounds(burst=600, seconds=0.1)
KEYS_OF_ALL = Bounds(burst=6000, seconds=0.02)


class FailureThrottle:
    """Attempts are counted before they are judged and given back when they succeed; used on the event loop only.

    The oldest addresses are forgotten when there are too many; the bound of all together holds then.
    """

    def __init__(self, of_address: Bounds, of_all: Bounds, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._of_address = of_address
        self._of_all = of_all
        self._all = _Bucket(of_all.burst, clock())
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def seconds_to_wait(self, address: str) -> int:
        """Return 0 and count an attempt, or the whole seconds until the next one is allowed."""
        bucket = self._bucket(address)
        waits = (
            _seconds_of(bucket, self._of_address, self._clock()),
            _seconds_of(self._all, self._of_all, self._clock()),
        )
        if max(waits) > 0:
            return max(1, math.ceil(max(waits)))
        bucket.tokens -= 1
        self._all.tokens -= 1
        return 0

    def give_back(self, address: str) -> None:
        """Forget an attempt that succeeded."""
        self._bucket(address).tokens += 1
        self._all.tokens += 1

    def _bucket(self, address: str) -> _Bucket:
        name = address_group(address)
        bucket = self._buckets.setdefault(name, _Bucket(self._of_address.burst, self._clock()))
        self._buckets.move_to_end(name)
        if len(self._buckets) > MAX_KEPT:
            self._buckets.popitem(last=False)
        return bucket


def _seconds_of(bucket: _Bucket, bounds: Bounds, now: float) -> float:
    bucket.tokens = min(bounds.burst, bucket.tokens + (now - bucket.filled_at) / bounds.seconds)
    bucket.filled_at = now
    return 0.0 if bucket.tokens >= 1 else (1 - bucket.tokens) * bounds.seconds
