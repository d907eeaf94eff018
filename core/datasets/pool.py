"""Batches through the row processor, in this process or in several, the results in the order of the batches."""

import gc
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Final

from core.datasets.faults import FileFault
from core.datasets.options import CheckOptions
from core.datasets.row_processing import BatchResult, RowProcessor
from core.datasets.sources.batches import Batch

_IN_FLIGHT_PER_WORKER: Final = 2

Work = tuple[Batch, bool]
"""A batch, and whether its rows are to be sketched."""


def process_in_order(
    work: Iterable[Work], options: CheckOptions, layout_name: str, num_workers: int
) -> Iterator[BatchResult]:
    """Where the work breaks off with a FileFault, what came before is answered first.

    Raises:
        FileFault: from `work`.
        MemoryError: a worker died, which the kernel, or the limit on its memory, does to it.
    """
    if num_workers <= 1:
        processor = RowProcessor(options, layout_name)
        for batch, with_sketches in work:
            yield processor.process(batch, with_sketches)
        return
    # Forked before this process has any thread: the check owns it (`core.datasets.child`).
    with ProcessPoolExecutor(
        num_workers, get_context("fork"), initializer=_start_worker, initargs=(options, layout_name)
    ) as pool:
        waiting: deque[Future[BatchResult]] = deque()
        broken: list[FileFault] = []
        try:
            for batch, with_sketches in _until_fault(work, broken):
                waiting.append(pool.submit(_process, batch, with_sketches))
                if len(waiting) > _IN_FLIGHT_PER_WORKER * num_workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            raise MemoryError from None
        finally:
            for future in waiting:
                future.cancel()
    if broken:
        raise broken[0]


def _until_fault(work: Iterable[Work], broken: list[FileFault]) -> Iterator[Work]:
    try:
        yield from work
    except FileFault as fault:
        broken.append(fault)


_processor: list[RowProcessor] = []


def _start_worker(options: CheckOptions, layout_name: str) -> None:
    gc.freeze()
    gc.set_threshold(100_000)  # rows make no cycles; looking for them often is a tenth of the time
    _processor[:] = [RowProcessor(options, layout_name)]


def _process(batch: Batch, with_sketches: bool) -> BatchResult:
    return _processor[0].process(batch, with_sketches)
