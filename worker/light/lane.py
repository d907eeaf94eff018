"""The light lane: a worker thread for requests that must not wait behind training, one at a time.

It shares nothing with training but the machine: no slot, no queue, no claim. A request that is not done when the lane
ends is found by another one, or by this one's successor.
"""

import logging
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from core.confinement import Bounds, confined
from core.datasets.check.check_process import CheckCrashed
from core.disk_space import full_disk_detail, is_full, is_out_of_space
from core.domain.errors import DomainError, Unavailable
from core.domain.generation_protocol import REFUSAL_PREFIX
from core.domain.jobs.stored_files import StoredTree
from core.services.backend import Backend
from core.services.requests import requests
from core.services.requests.requests import RequestLease
from core.storage.trees import TreeDamaged, fetch_tree
from worker.child_environment import trainer_environment
from worker.drain import Drain
from worker.priority import lower_session
from worker.pulse import LaneBeat
from worker.scratch import WorkerScratch

POLL_SECONDS = 0.5
"""Pause between two looks of an idle lane for requests that somebody waits for."""
QUIET_POLL_SECONDS = 2.0
"""The same for requests that take minutes."""
MAX_SECONDS = 1800.0
"""Time limit of one program of a request."""
_TICK_SECONDS = 0.1
_KEPT_LOG_CHARS = 2000

_log = logging.getLogger(__name__)


class LaneStopping(Exception):
    """Raised when the worker drains, or another lane has the request."""


class RequestRefused(Exception):
    """Raised for a request that cannot be done. The text is for the user."""


class ProgramKilled(RequestRefused):
    """Raised where a signal ended a program of a request."""


class TryAgain(Exception):
    """Raised for a request that is to be tried again, as often as requests are."""


@contextmanager
def refusals() -> Iterator[None]:
    """Turn what a service refuses into an answer to the user. Raises RequestRefused, TryAgain."""
    try:
        yield
    except CheckCrashed as crashed:  # its file is the service's own
        raise TryAgain from crashed
    except DomainError as error:
        if error.kind in ("unavailable", "fenced"):
            raise
        raise RequestRefused(error.detail) from None


class RequestContext:
    """Resources of the lane for one request: its directory, its lease, its programs."""

    def __init__(self, lane: "LightLane", lease: RequestLease, work_dir: Path) -> None:
        self.backend = lane.backend
        self.num_threads = lane.num_threads
        self.work_dir = work_dir
        self._drain = lane.drain
        self._beat = lane.beat
        self._lease = lease
        self._renewed_at = time.monotonic()

    def check(self) -> None:
        """Renew the lease; called repeatedly. Raises LaneStopping when it is lost or the worker drains."""
        self._beat()
        if self._drain.is_begun:
            raise LaneStopping
        lease_seconds = self.backend.settings.lease_seconds
        if time.monotonic() - self._renewed_at > lease_seconds / 3:
            if not requests.renew(self.backend, self._lease, lease_seconds):
                raise LaneStopping
            self._renewed_at = time.monotonic()

    def fetch(self, tree: StoredTree, name: str) -> Path:
        """Fetch a stored policy into the work directory. Raises RequestRefused, LaneStopping, StoreUnavailable."""
        target = self.work_dir / name
        try:
            fetch_tree(self.backend.store, tree, target, between_files=self.check)
        except TreeDamaged as damage:
            raise RequestRefused(f"A stored policy is damaged: {damage}") from None
        return target

    def run(
        self,
        command: Sequence[str],
        what: str,
        environment: Mapping[str, str] | None = None,
        reads: Sequence[Path] = (),
        *,
        allows_tcp: bool = False,
        session_niceness: int = 0,
        while_running: Callable[[], None] | None = None,
    ) -> None:
        """Run a program over the work directory and `reads` to its end.

        `session_niceness` lowers its session beside others; inside it the program has the niceness that it takes.
        `while_running` is called many times a second and once more at the end; what it raises ends the program, for
        which there is no time limit then. Raises RequestRefused, LaneStopping.
        """
        (self.work_dir / "tmp").mkdir(exist_ok=True)
        log = self.work_dir / "log"
        bounds = Bounds(writes=[self.work_dir], reads=reads, allows_tcp=allows_tcp)
        with log.open("wb") as output:
            process = subprocess.Popen(
                confined([*command, str(self.work_dir)], bounds),
                cwd=self.work_dir,
                env={**trainer_environment(self.work_dir, self.num_threads), **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            try:
                if session_niceness:
                    lower_session(process.pid, session_niceness)
                self._wait(process, what, while_running)
            finally:
                process.kill()
                process.wait()
        if process.returncode != 0:
            text = log.read_text(errors="replace")[-_KEPT_LOG_CHARS:]
            _log.error("%s failed: %s", what, text)
            if is_full(self.work_dir, text):
                raise RequestRefused(_no_room())
            if (told := text.rpartition(REFUSAL_PREFIX))[1]:
                raise RequestRefused(told[2].splitlines()[0])
            refused = ProgramKilled if process.returncode < 0 else RequestRefused
            raise refused(f"{what} failed; the worker's log says more.")

    def _wait(self, process: "subprocess.Popen[bytes]", what: str, while_running: Callable[[], None] | None) -> None:
        deadline = time.monotonic() + MAX_SECONDS
        is_running = True
        while is_running:
            is_running = process.poll() is None
            self.check()
            if while_running is not None:
                while_running()
            elif time.monotonic() > deadline:
                raise RequestRefused(f"{what} took more than {MAX_SECONDS:.0f} seconds.")
            if is_running:
                time.sleep(_TICK_SECONDS)


def _no_room() -> str:
    return full_disk_detail("the files of this request", "then ask again")


class RequestClaim(Protocol):
    @property
    def lease(self) -> RequestLease: ...


Claim = TypeVar("Claim", bound=RequestClaim)


@dataclass(frozen=True)
class ClaimedRequest:
    lease: RequestLease
    do: Callable[[RequestContext], None]
    """Does the request and records its end. Raises RequestRefused, LaneStopping, TryAgain, Unavailable."""


@dataclass(frozen=True)
class RequestKind(Generic[Claim]):
    """A kind of request: what claims the next one, and what does it."""

    claim_next: Callable[[Backend, float], Claim | None]
    do: Callable[[Claim, RequestContext], None]

    def claim(self, backend: Backend, lease_seconds: float) -> ClaimedRequest | None:
        claim = self.claim_next(backend, lease_seconds)
        return None if claim is None else ClaimedRequest(claim.lease, partial(self.do, claim))


class LightLane:
    def __init__(
        self,
        backend: Backend,
        drain: Drain,
        scratch: WorkerScratch,
        num_threads: int,
        kinds: Sequence[RequestKind[Any]],
        *,
        name: str = "light",
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        """Take kinds of requests; those of the first kind come first."""
        self.backend = backend
        self.drain = drain
        self.num_threads = num_threads
        self.beat = LaneBeat(name)
        self._scratch = scratch
        self._kinds = kinds
        self._poll_seconds = poll_seconds
        self._thread = threading.Thread(target=self._run, name=f"{name} lane", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        while not self.drain.is_begun:
            self.beat()
            try:
                is_idle = not self._do_next()
            except Unavailable as error:
                _log.warning("cannot look for requests: %s", error.detail)
                is_idle = True
            except Exception:  # noqa: BLE001 - the edge of the lane: the next request must get its turn
                _log.exception("a request met an unexpected error; its lease will run out")
                is_idle = True
            if is_idle:
                self.drain.wait(random.uniform(0.75, 1.25) * self._poll_seconds)

    def _do_next(self) -> bool:
        work = self._claim()
        if work is None:
            return False
        with self._scratch.directory(work.lease.id) as work_dir:
            try:
                work.do(RequestContext(self, work.lease, work_dir))
            except RequestRefused as reason:
                requests.fail(self.backend, work.lease, str(reason))
            except LaneStopping:
                requests.give_back(self.backend, work.lease)
            except TryAgain:
                requests.give_back(self.backend, work.lease, counts=True)
            except OSError as error:
                if not is_out_of_space(error):
                    raise
                _log.error("no room for request %s: %s", work.lease.id, error)
                requests.fail(self.backend, work.lease, _no_room())
        return True

    def _claim(self) -> ClaimedRequest | None:
        for kind in self._kinds:
            work = kind.claim(self.backend, self.backend.settings.lease_seconds)
            if work is not None:
                return work
        return None
