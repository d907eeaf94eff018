"""Rate limit of a key: a token bucket for each, in this process."""

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

MAX_KEPT = 4096
BURST_SECONDS = 10.0
"""Seconds' worth of the rate that may come at once."""


@dataclass
class _Bucket:
    tokens: float
    filled_at: float


class RateLimits:
    """Token buckets by key; used on the event loop only."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def seconds_to_wait(self, key_id: str, requests_per_minute: int) -> int:
        """Return 0 and count the request, or the whole seconds until the next one is allowed."""
        rate = requests_per_minute / 60
        size = max(1.0, rate * BURST_SECONDS)
        now = self._clock()
        bucket = self._buckets.setdefault(key_id, _Bucket(size, now))
        self._buckets.move_to_end(key_id)
        if len(self._buckets) > MAX_KEPT:
            self._buckets.popitem(last=False)
        bucket.tokens = min(size, bucket.tokens + (now - bucket.filled_at) * rate)
        bucket.filled_at = now
        if bucket.tokens >= 1:
            bucket.tokens -= 1
            return 0
        return max(1, math.ceil((1 - bucket.tokens) / rate))
