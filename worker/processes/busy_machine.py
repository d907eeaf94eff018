"""Waiting of OpenMP's threads, shortened while other processes want the processor.

An operation that several threads share ends when the last of them has done its part. The others wait for it spinning,
which is fastest where all of them run, and ruinous where one was put off: they spin away the time in which it could
have run. GNU's OpenMP, which torch brings along, reads the number of turns once (`GOMP_SPINCOUNT`), but takes a short
one (100) whenever the process has more OpenMP threads than there are processors. So a team of idle threads, made and
dissolved while the process runs, switches all of its threads between the two. Results do not depend on it.
"""

import ctypes
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import sleep

INTERVAL_SECONDS = 0.5
BUSY_SHARE = 0.04
"""Share of the time in which its threads want to run that a process spends waiting for a processor, from which on the
machine is busy."""
QUIET_SHARE = 0.01
QUIET_INTERVALS = 6
"""Quiet intervals in a row after which the machine counts as quiet again."""
LEAST_NANOSECONDS = 10_000_000
"""Least time of an interval that says anything: with less to do, a process waits for others by chance."""
_THREADS = Path("/proc/self/task")
_MAPS = Path("/proc/self/maps")
_SOFT = 1
"""omp_pause_soft: dissolve the calling thread's team."""


class WaitingTime:
    """Time in which this process's threads were ready to run while others had the processors."""

    def __init__(self) -> None:
        self._before = self._read()

    @property
    def is_known(self) -> bool:
        """Whether the system tells."""
        return bool(self._before)

    def share(self) -> float:
        """Return the share of the time since the last call in which threads that wanted to run waited."""
        before, self._before = self._before, self._read()
        running = waiting = 0
        for thread, (run, wait) in self._before.items():
            run_before, wait_before = before.get(thread, (0, 0))
            running, waiting = running + run - run_before, waiting + wait - wait_before
        return waiting / (running + waiting) if running + waiting > LEAST_NANOSECONDS else 0.0

    @staticmethod
    def _read() -> dict[str, tuple[int, int]]:
        """Return nanoseconds of running and waiting so far of every thread."""
        found = {}
        for thread in _THREADS.iterdir() if _THREADS.is_dir() else ():
            with suppress(OSError, ValueError, IndexError):  # it has ended; or the system does not tell
                run, wait, *_ = (thread / "schedstat").read_text().split()
                found[thread.name] = int(run), int(wait)
        return found


class BusyMachine:
    """Judgement whether other processes want the processor, from one interval to the next."""

    def __init__(self) -> None:
        self.is_busy = False
        self._num_quiet = 0

    def judge(self, waited: float) -> bool:
        """Take the share that this process waited in the last interval; return whether the machine is busy."""
        if waited >= BUSY_SHARE:
            self.is_busy, self._num_quiet = True, 0
        elif waited > QUIET_SHARE:
            self._num_quiet = 0
        else:
            self._num_quiet += 1
            self.is_busy = self.is_busy and self._num_quiet < QUIET_INTERVALS
        return self.is_busy


class IdleTeam:
    """OpenMP threads that do nothing; while there are some, no thread of the process spins long.

    Belongs to the thread that calls it.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._size = len(os.sched_getaffinity(0)) + 1
        self.exists = False

    def make(self) -> None:
        """Start as many threads as there are processors."""
        if not self.exists:
            nothing = ctypes.cast(self._library.omp_get_thread_num, ctypes.c_void_p)
            self._library.GOMP_parallel(nothing, None, self._size, 0)
            self.exists = True

    def dissolve(self) -> None:
        """End these threads."""
        if self.exists:
            self._library.omp_pause_resource(_SOFT, self._library.omp_get_initial_device())
            self.exists = False


def gnu_openmp() -> ctypes.CDLL | None:
    """Return GNU's OpenMP library as this process has loaded it, or None."""
    try:
        lines = _MAPS.read_text().splitlines()
    except OSError:
        return None
    path = next((line.split(maxsplit=5)[-1] for line in lines if "libgomp" in line), None)
    library = None if path is None else ctypes.CDLL(path)
    is_known = all(hasattr(library, name) for name in ("GOMP_parallel", "omp_pause_resource", "omp_get_thread_num"))
    return library if is_known else None


def shorten_waiting_while_busy() -> None:
    """Start a thread that watches how busy the machine is, and makes threads wait accordingly."""
    threading.Thread(target=watch, name="busy-machine", daemon=True).start()


def watch(pause: Callable[[float], object] = sleep) -> None:
    """Watch until the process ends, or it shows that nothing can be done here."""
    machine, time, team = BusyMachine(), WaitingTime(), None
    while time.is_known:
        pause(INTERVAL_SECONDS)
        is_busy = machine.judge(time.share())
        if team is None and (library := gnu_openmp()) is not None:
            team = IdleTeam(library)
        if team is not None:
            (team.make if is_busy else team.dissolve)()
