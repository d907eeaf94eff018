"""Micro-batches computed side by side on a CPU: each by one thread, with its own share of the cores.

Threads that share an operation meet at its end, thousands of times a step; where another process has one of their
cores for a moment, all of them wait each time. Side by side they meet at the end of a step, and a core that is taken
away costs what it would have done.

Results do not depend on it: they stand in the order of the micro-batches, in which gradients are added up too
(`current_place`, `core.training.steps.optimizer`), whichever was ready first.
"""

import threading
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Generic, TypeVar

import torch

from core.training.data.micro_batches import LANES
from core.training.data.packing import PackedBatch

_Result = TypeVar("_Result")


class _Place(threading.local):
    """Number of the micro-batch that the current thread computes, among those of the step."""

    number: int | None = None


_place = _Place()


def current_place() -> int | None:
    """Return the number of the micro-batch that this thread computes; None outside `compute_each`."""
    return _place.number


def compute_each(
    batches: Sequence[PackedBatch], work: Callable[[int], _Result], runs_apart: Callable[[PackedBatch], bool]
) -> list[_Result]:
    """Call `work` with the number of each micro-batch, and return what it gives in their order.

    Of small ones, as many as there are lanes run at a time; a large one runs alone, on all threads.

    Args:
        work: computes a micro-batch; in any thread, with gradients enabled as in this one.
        runs_apart: tells small ones that must run alone, too.
    """
    results: list[_Result] = []
    has_threads = torch.get_num_threads() > 1

    def may_join(number: int) -> bool:
        return has_threads and batches[number].is_small and not runs_apart(batches[number])

    for may_all_join, numbers in groupby(range(len(batches)), key=may_join):
        found = list(numbers)
        if may_all_join and len(found) > 1:
            results += _Lanes(found, work).run()
        else:
            results += [_at(number, work) for number in found]
    return results


def _at(number: int, work: Callable[[int], _Result]) -> _Result:
    before, _place.number = _place.number, number
    try:
        return work(number)
    finally:
        _place.number = before


class _Lanes(Generic[_Result]):
    """Threads that take micro-batches in their order, never more than `LANES` of them apart."""

    def __init__(self, numbers: Sequence[int], work: Callable[[int], _Result]) -> None:
        self._numbers, self._work = numbers, work
        self._results: dict[int, _Result] = {}
        self._failures: dict[int, BaseException] = {}
        self._num_taken = 0
        self._changed = threading.Condition()
        self._threads = torch.get_num_threads()
        self._keeps_graph = torch.is_grad_enabled()

    def run(self) -> list[_Result]:
        """Compute all of them; raises what the first that failed raised."""
        others = [threading.Thread(target=self._lane, name=f"lane-{lane}") for lane in range(1, LANES)]
        for other in others:
            other.start()
        try:
            self._lane()
        finally:
            for other in others:
                other.join()
            torch.set_num_threads(self._threads)
        if self._failures:
            raise self._failures[min(self._failures)]
        return [self._results[number] for number in self._numbers]

    def _lane(self) -> None:
        torch.set_num_threads(max(1, self._threads // LANES))
        with torch.set_grad_enabled(self._keeps_graph):
            while (number := self._take()) is not None:
                try:
                    result = _at(number, self._work)
                except BaseException as failure:  # noqa: BLE001 - `run` raises it again
                    self._end(number, failure)
                else:
                    self._results[number] = result
                    self._end(number)

    def _take(self) -> int | None:
        """Return the next micro-batch, once the one `LANES` before it is done; None when there is none left."""
        with self._changed:
            self._changed.wait_for(self._may_go_on)
            if self._failures or self._num_taken == len(self._numbers):
                return None
            self._num_taken += 1
            return self._numbers[self._num_taken - 1]

    def _may_go_on(self) -> bool:
        if self._failures or self._num_taken == len(self._numbers):
            return True
        return self._num_taken < LANES or self._numbers[self._num_taken - LANES] in self._results

    def _end(self, number: int, failure: BaseException | None = None) -> None:
        with self._changed:
            if failure is not None:
                self._failures[number] = failure
            self._changed.notify_all()
