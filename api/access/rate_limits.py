"""Rate limits of keys: token buckets, of this process alone or shared by all through the database."""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import structlog
from anyio import CapacityLimiter, to_thread

from core.domain.errors import Unavailable
from core.services.access import rates
from core.services.backend import Backend

MAX_KEPT = 4096
_MAX_WRITES = 2
_MAX_REFUSED_SECONDS = 1.0
"""A refusal is repeated for at most so long without a look at the database."""

log = structlog.get_logger("api")


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
        size = rates.size_of(requests_per_minute)
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


@dataclass
class _Taken:
    """What this process has taken from a key's shared bucket."""

    tokens: int = 0
    """Kept until they are spent: what is thrown away would be missing in the other processes."""
    refused_until: float = -math.inf
    seconds: float = 0.0
    """Time until the next token, where there is none."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class SharedRateLimits:
    """Buckets in the database; lives on the event loop.

    Tokens are taken before they are used, so that all processes together let through what the bucket gave, and at once
    at most one batch for each process more than the bucket holds. While the database is away the limits are those of
    this process alone.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._taken: OrderedDict[str, _Taken] = OrderedDict()
        self._alone = RateLimits(clock)
        self._writes = CapacityLimiter(_MAX_WRITES)

    async def seconds_to_wait(self, backend: Backend, key_id: str, requests_per_minute: int) -> int:
        """Return 0 and count the request, or the whole seconds until the next one is allowed."""
        mine = self._taken.setdefault(key_id, _Taken())
        self._taken.move_to_end(key_id)
        if len(self._taken) > MAX_KEPT:
            self._taken.popitem(last=False)
        async with mine.lock:
            mine.tokens = min(mine.tokens, rates.batch_of(requests_per_minute))  # the rate may have been lowered
            if not mine.tokens and self._clock() >= mine.refused_until:
                work = partial(rates.withdraw, backend, key_id, requests_per_minute)
                try:
                    found = await to_thread.run_sync(work, limiter=self._writes)
                except Unavailable as error:
                    log.warning("rate_of_process_alone", key_id=key_id, reason=error.detail)
                    return self._alone.seconds_to_wait(key_id, requests_per_minute)
                mine.tokens, mine.seconds = found.num_tokens, found.seconds
                mine.refused_until = self._clock() + min(found.seconds, _MAX_REFUSED_SECONDS)
            if mine.tokens:
                mine.tokens -= 1
                return 0
            return max(1, math.ceil(mine.seconds))
