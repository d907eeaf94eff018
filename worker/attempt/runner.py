"""Runner of one attempt at a time: claims queued jobs until none is left or the worker drains."""

import logging
import random
import socket
import threading
from contextlib import suppress

from core.disk_space import GOES_ON, full_disk_detail, is_out_of_space
from core.domain.errors import Fenced, Unavailable
from core.domain.jobs.failure_codes import FailureCode
from core.domain.jobs.gangs import Waiting
from core.domain.jobs.job_state import AttemptOutcome
from core.failpoints import reach
from core.services.attempts import lifecycle, nodes
from core.services.attempts.claimed_job import ClaimedJob
from worker.attempt.nodes.causes import report_of
from worker.attempt.nodes.member import run_node
from worker.attempt.outcomes import GiveBack
from worker.attempt.supervisor import run_attempt
from worker.attempt.workplace import Workplace
from worker.device import Device
from worker.device_slot import DeviceSlot
from worker.network import seat_of
from worker.patience import MAX_PAUSE_SECONDS
from worker.scratch import WorkerScratch

_WAIT_SECONDS = 0.2
_GANG_LOOK_SECONDS = 1.0

_log = logging.getLogger(__name__)


class Runner:
    def __init__(self, place: Workplace, device: Device, scratch: WorkerScratch) -> None:
        self._place = place
        self._device = device
        self._scratch = scratch
        self._slot = threading.Lock()
        network, settings = place.network, place.backend.settings
        self._seat = None if network is None else seat_of(network, settings)
        self._worker = settings.effective_worker_name
        self._left: str | None = None
        """Token of the newest attempt of which this worker was another node than node 0: it does not come back."""
        self.slot = DeviceSlot()
        """The device, which generations borrow between jobs."""

    def run_queued(self) -> None:
        """Run one job after the other. A second caller waits for its turn, and so takes no second wake-up."""
        while not self._slot.acquire(timeout=_WAIT_SECONDS):
            if self._place.drain.is_begun:
                return
        try:
            self._place.beat()
            while not self._place.drain.is_begun and self._run_next():
                continue
        finally:
            self._slot.release()

    def poll(self) -> None:
        """Look for jobs periodically until the worker drains: wake-ups may be lost."""
        settings = self._place.backend.settings
        num_failures = 0
        while not self._place.drain.is_begun:
            try:
                self.run_queued()
                num_failures = 0
            except Unavailable as error:
                num_failures += 1
                _log.warning("cannot look for jobs: %s", error.detail)
            except Exception:  # noqa: BLE001 - without this thread, a worker without a broker would never work again
                num_failures += 1
                _log.exception("unexpected error while looking for jobs")
            longest = max(MAX_PAUSE_SECONDS, settings.poll_seconds)
            pause = min(longest, settings.poll_seconds * 2.0 ** min(num_failures, 8))
            pause *= random.uniform(0.75, 1.25)
            self._place.beat(rest_seconds=pause)
            self._place.drain.wait(pause)

    def _run_next(self) -> bool:
        claim = self._claim()
        if claim is None:
            return False
        self._left = claim.token if claim.place.node else None
        try:
            with self.slot.training(), self._scratch.attempt(claim) as work_dir:
                reach("attempt.directory_made")
                run = run_attempt if claim.place.node == 0 else run_node
                run(self._place, claim, work_dir)
        except OSError as error:
            _log.error("no work directory for %s: %s", claim.job_id, error)
            self._hand_back(claim, error)
        return True

    def _claim(self) -> ClaimedJob | None:
        """Claim a job; wait for the other nodes of one that takes several. None without any, and when drained."""
        backend, drain = self._place.backend, self._place.drain
        host, device = socket.gethostname(), self._device.label
        while True:
            found = lifecycle.claim_or_wait(backend, worker=self._worker, host=host, device=device, seat=self._seat)
            has_left = isinstance(found, ClaimedJob) and found.place.node > 0 and found.token == self._left
            if not isinstance(found, Waiting) and not has_left:
                return found
            self._place.beat()
            if drain.wait(min(_GANG_LOOK_SECONDS, backend.settings.poll_seconds)):
                assert self._seat is not None
                lifecycle.leave_gang(backend, self._seat)
                return None

    def _hand_back(self, claim: ClaimedJob, error: OSError) -> None:
        """Release a job before anything began. Unless the database answers, the lease expires."""
        detail, code = "The worker cannot make a work directory.", None
        if is_out_of_space(error):
            detail, code = full_disk_detail("the directory of an attempt", GOES_ON), FailureCode.DISK_FULL
        with suppress(Fenced, Unavailable):
            if claim.place.node == 0:
                lifecycle.release(claim, AttemptOutcome.CRASHED, detail, code)
            else:
                end = GiveBack(outcome=AttemptOutcome.CRASHED, detail=detail, code=code)
                nodes.report(claim, report_of(end, is_consequence=False))
