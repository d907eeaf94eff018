"""Lanes of threads: waiting for the object store or a tokenizer does not use up the threads of other requests."""

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from enum import Enum, auto
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar

from anyio import CapacityLimiter, to_thread
from anyio.lowlevel import RunVar

Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")


class Lane(Enum):
    """Lane of an endpoint; those without one use the database only."""

    STORE = auto()
    PREVIEWS = auto()
    WEBHOOKS = auto()
    """One sample event on its way to a receiver, or a look at its address."""
    ANSWERS = auto()
    """One prompt that is rendered and encoded."""
    DIFFS = auto()
    """Two datasets whose rows are compared, which takes hundreds of megabytes."""
    WAITING = auto()
    """One look of somebody who waits."""


NUM_THREADS = {Lane.STORE: 24, Lane.PREVIEWS: 4, Lane.WEBHOOKS: 4, Lane.ANSWERS: 4, Lane.DIFFS: 2, Lane.WAITING: 4}
"""Number of threads of a lane in this process."""


_limiters: RunVar[dict[Lane, CapacityLimiter]] = RunVar("preftune lanes")


def limiter_of(lane: Lane) -> CapacityLimiter:
    """Return the lane's limiter in this event loop."""
    try:
        known = _limiters.get()
    except LookupError:
        known = {}
        _limiters.set(known)
    return known.setdefault(lane, CapacityLimiter(NUM_THREADS[lane]))


async def run_in(lane: Lane, work: Callable[[], Result]) -> Result:
    return await to_thread.run_sync(work, limiter=limiter_of(lane))


def in_lane(
    lane: Lane,
) -> Callable[[Callable[Arguments, Result]], Callable[Arguments, Coroutine[Any, Any, Result]]]:
    """Decorate a plain endpoint to run in a thread of the lane."""

    def decorate(endpoint: Callable[Arguments, Result]) -> Callable[Arguments, Coroutine[Any, Any, Result]]:
        @wraps(endpoint)
        async def run(*args: Arguments.args, **named: Arguments.kwargs) -> Result:
            return await run_in(lane, partial(endpoint, *args, **named))

        return run

    return decorate


async def iterate_in(lane: Lane, items: Iterator[Result]) -> AsyncIterator[Result]:
    """Yield the items, each fetched in a thread of the lane. Items are not None."""
    while (found := await run_in(lane, lambda: next(items, None))) is not None:
        yield found
