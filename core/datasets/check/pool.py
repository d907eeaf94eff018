"""Processing of batches in this process or in several, with results in the order of the batches.

Lines go to helpers, and rows come back, in memory that all of them share: through pipes, copying alone would cost a
fifth of the time.
"""

import gc
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from mmap import mmap
from multiprocessing import active_children, get_context
from typing import Final, NamedTuple

from core.datasets.faults import FileFault
from core.datasets.options import MIB
from core.datasets.rows.row_processing import BatchResult, RowProcessor
from core.datasets.sources.batches import Batch, LineBatch

ROWS_BETWEEN_COLLECTIONS: Final = 100_000
"""Threshold of the garbage collector: rows make no cycles, and to look for them often is a tenth of the time."""
_IN_FLIGHT_PER_WORKER: Final = 2
_MAX_BATCH_SECONDS: Final = 300
"""A batch takes a fraction of a second; a worker without an answer after that long waits for something that is gone."""
_SHARED_BYTES: Final = 5 * MIB
"""For one batch; what is larger goes through a pipe."""

Work = tuple[Batch, bool]
"""A batch, and whether its rows are to be sketched."""


class _SharedLines(NamedTuple):
    """A batch whose bytes are in shared memory."""

    first_line: int
    num_lines: int
    num_bytes: int


class _Answer(NamedTuple):
    result: BatchResult
    num_shared_bytes: int
    """Bytes of rows in shared memory instead of in the result."""


class _Asked(NamedTuple):
    memory: mmap
    future: Future[_Answer]

    def result(self) -> BatchResult:
        result, num_bytes = self.future.result(_MAX_BATCH_SECONDS)
        if num_bytes:
            result.rows = self.memory[:num_bytes]
        return result


def process_in_order(work: Iterable[Work], processor: RowProcessor, num_workers: int) -> Iterator[BatchResult]:
    """Yield results in the order of the batches; those before a FileFault are yielded before it is raised.

    Raises:
        FileFault: from `work`.
        MemoryError: a worker died, which the kernel, or the limit on its memory, does to it; or from `work`.
        TimeoutError: a worker gives no answer.
    """
    if num_workers <= 1:
        for batch, with_sketches in work:
            yield processor.process(batch, with_sketches)
        return
    num_places = _IN_FLIGHT_PER_WORKER * num_workers + 1
    shared = [mmap(-1, _SHARED_BYTES) for _ in range(num_places)]
    # Forked before this process has any thread: the check owns it (`core.datasets.check.child`).
    with ProcessPoolExecutor(
        num_workers, get_context("fork"), initializer=_start_worker, initargs=(processor, shared)
    ) as pool:
        waiting: deque[_Asked] = deque()
        broken: list[FileFault] = []
        try:
            for number, (batch, with_sketches) in enumerate(_until_fault(work, broken)):
                place = number % num_places
                given = _share(batch, shared[place])
                waiting.append(_Asked(shared[place], pool.submit(_process, given, place, with_sketches)))
                if len(waiting) == num_places:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            raise MemoryError from None
        except BaseException:  # what ends the work ends the workers at once; leaving the pool would wait for them
            for worker in active_children():
                worker.kill()
            raise
    for memory in shared:
        memory.close()
    if broken:
        raise broken[0]


def _share(batch: Batch, memory: mmap) -> Batch | _SharedLines:
    if not isinstance(batch, LineBatch) or len(batch.data) > _SHARED_BYTES:
        return batch
    memory[: len(batch.data)] = batch.data
    return _SharedLines(batch.first_line, batch.num_lines, len(batch.data))


def _until_fault(work: Iterable[Work], broken: list[FileFault]) -> Iterator[Work]:
    try:
        yield from work
    except FileFault as fault:
        broken.append(fault)


_processor: list[RowProcessor] = []
_shared: list[mmap] = []


def _start_worker(processor: RowProcessor, shared: list[mmap]) -> None:
    gc.freeze()
    gc.set_threshold(ROWS_BETWEEN_COLLECTIONS)
    _processor[:] = [processor]
    _shared[:] = shared


def _process(given: Batch | _SharedLines, place: int, with_sketches: bool) -> _Answer:
    memory = _shared[place]
    if isinstance(given, _SharedLines):
        given = LineBatch(given.first_line, given.num_lines, memory[: given.num_bytes])
    result = _processor[0].process(given, with_sketches)
    num_bytes = len(result.rows)
    if num_bytes > _SHARED_BYTES:
        return _Answer(result, 0)
    memory[:num_bytes] = result.rows
    result.rows = b""
    return _Answer(result, num_bytes)
