"""One fault run of jobs on two nodes: random moments, what is waited for after each strike, and how long it took."""

import random
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Collection
from datetime import datetime

from faults.grounds import Grounds
from faults.outcome import Outcome
from faults.trainers import Trainer
from nodes.hosts import Host
from nodes.world import NodesTrainer, NodesWorld, last_lines, send
from toy_jobs import messages, process_state
from toy_trainer import Script

from core.clock import utc_now
from core.database.tables.jobs import Job
from core.domain.jobs.job_state import FINAL_STATUSES, JobStatus

SCRIPT = Script(checkpoint_every=4)
LOOK_SECONDS = 0.2
PATIENCE_SECONDS = 180.0
"""Longest wait; what takes longer than it may, but comes, is told with its time."""
EARLY_SHARE = 0.3
"""Of strikes that come before the attempt has a checkpoint of its own; never two on end, of which three end a job."""
EARLY_SECONDS, LATE_SECONDS = 3.0, 1.5
"""The longest time of a strike after the attempt's start, and after its first checkpoint."""


class Run:
    def __init__(self, grounds: Grounds, seed: int, trainer: Trainer) -> None:
        assert isinstance(trainer, NodesTrainer)
        self.seed = seed
        self.chance = random.Random(seed)
        self.count = 0
        self.violations: list[str] = []
        self.notes: dict[str, list[float | str]] = defaultdict(list)
        self.is_early = False
        """Whether the newest moment was before the attempt's first checkpoint."""
        self.world = NodesWorld(grounds, trainer)
        for host in self.world.hosts:
            self.world.start_on(host)

    def await_moment(self, job_id: str) -> int | None:
        """Wait for a random moment of an attempt; return its number, or None once the job is over."""
        self.is_early = not self.is_early and self.chance.random() < EARLY_SHARE
        share = self.chance.random()
        while True:
            job = self._await_job(job_id, lambda job: job.status is JobStatus.RUNNING, "an attempt")
            number = job.attempt
            if self.is_early:
                time.sleep(share * EARLY_SECONDS)
            else:
                self._await_job(job_id, lambda job, number=number: self._is_due(job, number), "a checkpoint")
                time.sleep(share * LATE_SECONDS)
            job = self.world.job(job_id)
            if job.status in FINAL_STATUSES:
                return None
            if job.status is JobStatus.RUNNING and job.attempt == number:
                return number

    def await_next(self, job_id: str, number: int, since: datetime, what: str) -> None:
        """Wait until the next attempt starts, and note how long it took since a moment; or until the job is over."""
        self._await(job_id, lambda: self._started_at(job_id, number + 1), since, f"the next attempt after {what}")

    def await_end(self, job_id: str, number: int, since: datetime, what: str) -> None:
        """Wait until the attempt has ended, and note how long it took."""

        def ended_at() -> datetime | None:
            attempt = self.world.attempt(job_id, number)
            return None if attempt is None else attempt.ended_at

        self._await(job_id, ended_at, since, f"the end of the attempt in {what}", "end_seconds")

    def await_going_on(self, job_id: str, number: int, since: datetime, what: str) -> None:
        """Wait until the attempt stores another checkpoint, or the next one starts; or until the job is over."""
        attempt = self.world.attempt(job_id, number)
        assert attempt is not None
        if attempt.outcome is not None:
            self.await_next(job_id, number, since, what)
            return
        num_before = attempt.num_checkpoints

        def goes_on_at() -> datetime | None:
            now = self.world.attempt(job_id, number)
            is_there = now is not None and now.outcome is None and now.num_checkpoints > num_before
            return utc_now() if is_there else self._started_at(job_id, number + 1)

        self._await(job_id, goes_on_at, since, f"progress after {what}", "progress_seconds")

    def await_status(self, job_id: str, status: JobStatus, since: datetime) -> bool:
        """Wait for a status that was asked for, and until the workers are free; False if the job was over before."""

        def is_there() -> datetime | None:
            job = self.world.job(job_id)
            return utc_now() if job.status is status and self.world.is_free() else None

        others = FINAL_STATUSES - {status}
        self._await(job_id, is_there, since, f"the status {status}, and free workers", "stop_seconds", others)
        return self.world.job(job_id).status is status

    def await_gone(self, host: Host, name: str, since: datetime) -> None:
        """Wait until a worker of the host has let go of an attempt."""
        seconds = self._bounded(lambda: not self.world.directories(host, name), since, "a woken worker to be free")
        self.notes["free_seconds"].append(seconds)

    def freeze(self, pid: int) -> bool:
        """Stop a process; False where it is gone."""
        if not send(pid, signal.SIGSTOP):
            return False
        self._bounded(lambda: process_state(pid) in "TZX", utc_now(), "a process to stop")
        return True

    def end(self) -> Outcome:
        """Let the jobs end, and check."""
        since = utc_now()
        if not self.world.wait_for_all("succeeded", "cancelled", seconds=PATIENCE_SECONDS):
            self.violations += last_lines(self.world)
        self._bounded(self.world.is_free, since, "free workers at the end", PATIENCE_SECONDS)
        for job_id in self.world.ledger.scripts:
            wanted = int(self.world.status(job_id) == "succeeded")
            if (found := self.world.num_artifacts(job_id)) != wanted:
                self.violations.append(f"{job_id} has {found} artifacts")
        return Outcome(self.seed, "postgresql s3", self.count, self.violations + self.world.finish(), dict(self.notes))

    def _is_due(self, job: Job, number: int) -> bool:
        """Whether an attempt has a checkpoint of its own, or is over."""
        if job.status is not JobStatus.RUNNING or job.attempt != number:
            return True
        attempt = self.world.attempt(job.id, number)
        return attempt is not None and attempt.num_checkpoints > 0

    def _started_at(self, job_id: str, number: int) -> datetime | None:
        attempt = self.world.attempt(job_id, number)
        return None if attempt is None else attempt.started_at

    def _await_job(self, job_id: str, condition: Callable[[Job], bool], what: str) -> Job:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            job = self.world.job(job_id)
            if condition(job) or job.status in FINAL_STATUSES:
                return job
            self._require(time.monotonic() < deadline, what)
            time.sleep(LOOK_SECONDS)

    def _await(
        self,
        job_id: str,
        find: Callable[[], datetime | None],
        since: datetime,
        what: str,
        note: str = "recovery_seconds",
        over: Collection[JobStatus] = FINAL_STATUSES,
    ) -> None:
        """Wait until something happens, which has a time; nothing is noted where the job is over before."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (at := find()) is None:
            if self.world.job(job_id).status in over and find() is None:
                return
            self._require(time.monotonic() < deadline, what)
            time.sleep(LOOK_SECONDS)
        seconds = round(max(0.0, (at - since).total_seconds()), 1)
        self.notes[note].append(seconds)
        self._judge(seconds, what)

    def _bounded(self, condition: Callable[[], bool], since: datetime, what: str, more_seconds: float = 0.0) -> float:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            self._require(time.monotonic() < deadline, what)
            time.sleep(LOOK_SECONDS)
        seconds = round((utc_now() - since).total_seconds(), 1)
        self._judge(seconds - more_seconds, what)
        return seconds

    def _judge(self, seconds: float, what: str) -> None:
        if seconds > self.world.bound_seconds:
            self.violations.append(f"{what} took {seconds:.1f} s, which may be {self.world.bound_seconds:.0f}")

    def _require(self, is_in_time: bool, what: str) -> None:
        if not is_in_time:
            said = {job_id: messages(self.world.backend, job_id)[-6:] for job_id in self.world.ledger.scripts}
            raise AssertionError(f"waited {PATIENCE_SECONDS} s for {what}; {said}; {last_lines(self.world)}")
