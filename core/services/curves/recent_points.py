"""Cache of the newest points of polled jobs, read and encoded once for all readers.

Many readers of one job ask for the points of the last second, each from its own cursor. A point never changes, and its
number is given to no other point of the job, even after a rewind; so what was read once can be given to everybody who
is not behind a rewind. Safe to use from several threads.
"""

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Sequence

MAX_JOBS = 64
MAX_POINTS = 2000
"""Points cached of one job; a reader further behind reads by itself."""

Numbered = tuple[int, bytes]
"""`seq` of a point, and the point as JSON."""


class RecentPoints:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tails: OrderedDict[str, _Tail] = OrderedDict()

    def extend(self, job_id: str, first: int, newest: int, load: Callable[[int], Sequence[Numbered]]) -> None:
        """Load the points up to `newest`.

        Args:
            first: the number before the job's first one.
            newest: the job's last number, in the caller's transaction.
            load: up to `MAX_POINTS` + 1 points behind a number, in the same transaction.
        """
        with self._lock:
            tail = self._tails.get(job_id)
            if tail is None:
                tail = self._tails[job_id] = _Tail(first if newest - first <= MAX_POINTS else newest)
            self._tails.move_to_end(job_id)
            while len(self._tails) > MAX_JOBS:
                self._tails.popitem(last=False)
        tail.extend(newest, load)

    def between(self, job_id: str, after: int, newest: int) -> list[Numbered] | None:
        """Return all points with after < seq <= newest in order; None if they are not cached."""
        with self._lock:
            tail = self._tails.get(job_id)
        return None if tail is None else tail.between(after, newest)


class _Tail:
    """All points of a job with floor < seq <= top."""

    def __init__(self, floor: int) -> None:
        self._lock = threading.Lock()
        self._floor = self._top = floor
        self._seqs: list[int] = []
        self._points: list[bytes] = []

    def between(self, after: int, newest: int) -> list[Numbered] | None:
        with self._lock:
            if after < self._floor or newest > self._top:
                return None
            span = slice(bisect_right(self._seqs, after), bisect_right(self._seqs, newest))
            return list(zip(self._seqs[span], self._points[span], strict=True))

    def extend(self, newest: int, load: Callable[[int], Sequence[Numbered]]) -> None:
        with self._lock:
            if newest <= self._top:
                return
            found = [item for item in load(self._top) if item[0] <= newest]
            self._top = newest
            if len(found) > MAX_POINTS:  # nobody asked for long: begin anew from here
                self._floor, self._seqs, self._points = newest, [], []
                return
            self._seqs += [seq for seq, _ in found]
            self._points += [point for _, point in found]
            if (surplus := len(self._seqs) - MAX_POINTS) > 0:
                self._floor = self._seqs[surplus - 1]
                del self._seqs[:surplus], self._points[:surplus]
