"""Random histories of jobs, with users, workers, zombies and a sweeper, against a model in a few lines."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from backends import PROJECT, add_dataset, checkpoint, point, publication, submit
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import text

from core.database.schema import metadata
from core.domain.errors import Conflict, Fenced
from core.domain.jobs.failure_codes import FailureCode
from core.domain.jobs.job_state import FINAL_STATUSES, MAX_CRASHES, MAX_LOSSES, AttemptOutcome, Desired, JobStatus
from core.services.attempts import lifecycle, recording
from core.services.attempts.claimed_job import ClaimedJob
from core.services.backend import Backend
from core.services.curves import pages
from core.services.jobs import events, jobs, steering
from core.services.operations.sweep import expire, list_leases

MAX_EXAMPLES = int(os.environ.get("STATE_MACHINE_EXAMPLES", "5"))
MAX_STEPS = 40


@dataclass
class Model:
    """What one job should be."""

    status: JobStatus = JobStatus.QUEUED
    desired: Desired = Desired.RUN
    attempt: int = 0
    crash_count: int = 0
    num_lost: int = 0
    """Workers that vanished since the newest checkpoint: not the job's crashes, with a bound of their own."""
    num_checkpoints_of_attempt: int = 0
    newest_checkpoint: int = 0
    is_begun: bool = False
    steps: list[int] = field(default_factory=list)
    final_events: int = 0

    @property
    def is_final(self) -> bool:
        return self.status in FINAL_STATUSES

    def end(self, status: JobStatus) -> None:
        self.status = status
        self.final_events += self.is_final
        if status is JobStatus.CANCELLED:
            self.desired = Desired.CANCEL

    def give_back(self, *, is_free: bool) -> None:
        if self.desired is Desired.CANCEL:
            self.end(JobStatus.CANCELLED)
        elif self.desired is Desired.PAUSE:
            self.status = JobStatus.PAUSED
        elif is_free:
            self.status = JobStatus.QUEUED
        else:
            self.crash_count += 1
            if self.crash_count >= MAX_CRASHES:
                self.end(JobStatus.FAILED)
            else:
                self.status = JobStatus.QUEUED

    def lose_worker(self) -> None:
        self.num_lost += self.num_checkpoints_of_attempt == 0
        if self.desired is Desired.RUN and self.num_lost >= MAX_LOSSES:
            self.end(JobStatus.FAILED)
        else:
            self.give_back(is_free=True)


class JobHistories(RuleBasedStateMachine):
    job_ids: Bundle[str] = Bundle("jobs")
    claims: Bundle[ClaimedJob] = Bundle("claims")

    def __init__(self, backend: Backend) -> None:
        super().__init__()
        self.backend = backend
        self.models: dict[str, Model] = {}
        tables = [table for table in metadata.sorted_tables if table.name not in ("projects", "sweeper_lock")]

        def empty(session: Any) -> None:
            for table in reversed(tables):
                session.execute(table.delete())

        backend.database.write(empty)
        add_dataset(backend)

    @rule(target=job_ids, priority=st.integers(0, 2))
    def submit(self, priority: int) -> str:
        job_id = submit(self.backend, priority=priority).id
        self.models[job_id] = Model()
        return job_id

    @rule(target=claims)
    def claim(self) -> Any:
        def make_due(session: Any) -> None:
            session.execute(text("UPDATE jobs SET next_run_at = created_at"))

        self.backend.database.write(make_due)
        held = lifecycle.claim(self.backend, worker="w", host="h", device="cpu")
        queued = [job_id for job_id, model in self.models.items() if model.status is JobStatus.QUEUED]
        assert (held is not None) == bool(queued)
        if held is None:
            return multiple()
        assert held.job_id in queued
        model = self.models[held.job_id]
        model.status = JobStatus.RUNNING
        model.attempt += 1
        model.num_checkpoints_of_attempt = 0
        model.is_begun = False
        assert held.attempt == model.attempt
        return held

    def as_worker(self, held: ClaimedJob, write: Callable[[], Any]) -> Model | None:
        """The job's model if the write was accepted; it must be exactly when the attempt is the current one."""
        model = self.models.get(held.job_id)
        is_current = model is not None and (model.status, model.attempt) == (JobStatus.RUNNING, held.attempt)
        if is_current:
            write()
            return model
        with pytest.raises(Fenced):
            write()
        return None

    @rule(held=claims)
    def heartbeat(self, held: ClaimedJob) -> None:
        replies = []
        model = self.as_worker(held, lambda: replies.append(lifecycle.heartbeat(held)))
        if model:
            assert replies[0].desired is model.desired

    @rule(held=claims)
    def begin(self, held: ClaimedJob) -> None:
        model = self.as_worker(held, lambda: lifecycle.begin(held))
        if model and not model.is_begun:
            model.is_begun = True
            model.steps = [step for step in model.steps if step <= model.newest_checkpoint]

    @rule(held=claims, count=st.integers(1, 3))
    def train(self, held: ClaimedJob, count: int) -> None:
        model = self.models.get(held.job_id)
        if model is None or not model.is_begun:
            return
        first = (model.steps[-1] if model.steps else 0) + 1
        points = [point(step) for step in range(first, first + count)]
        if self.as_worker(held, lambda: recording.record_points(held, points)):
            model.steps += range(first, first + count)

    @rule(held=claims)
    def save(self, held: ClaimedJob) -> None:
        model = self.models.get(held.job_id)
        if model is None or not model.is_begun or not model.steps or model.newest_checkpoint == model.steps[-1]:
            return
        step = model.steps[-1]
        if self.as_worker(held, lambda: checkpoint(self.backend, held, step)):
            model.newest_checkpoint = step
            model.num_checkpoints_of_attempt += 1
            model.crash_count = model.num_lost = 0

    @rule(held=claims)
    def succeed(self, held: ClaimedJob) -> None:
        published = publication(self.backend, held)
        model = self.models.get(held.job_id)
        if model and model.status is JobStatus.SUCCEEDED and model.attempt == held.attempt:
            lifecycle.finish_succeeded(held, published)
        elif self.as_worker(held, lambda: lifecycle.finish_succeeded(held, published)) and model:
            model.end(JobStatus.SUCCEEDED)

    @rule(held=claims, outcome=st.sampled_from([AttemptOutcome.CRASHED, AttemptOutcome.DRAINED]))
    def release(self, held: ClaimedJob, outcome: AttemptOutcome) -> None:
        model = self.models.get(held.job_id)
        if model is None or (model.status, model.attempt) != (JobStatus.RUNNING, held.attempt):
            return
        lifecycle.release(held, outcome)
        model.give_back(is_free=outcome is AttemptOutcome.DRAINED)

    @rule(held=claims)
    def stop(self, held: ClaimedJob) -> None:
        """What a supervisor does when its trainer has stopped as the user wished."""
        model = self.models.get(held.job_id)
        if model is None or (model.status, model.attempt) != (JobStatus.RUNNING, held.attempt):
            return
        if model.desired is Desired.CANCEL:
            lifecycle.finish_cancelled(held)
            model.end(JobStatus.CANCELLED)
        else:
            lifecycle.finish_paused(held)
            model.give_back(is_free=True)

    @rule(held=claims)
    def fail(self, held: ClaimedJob) -> None:
        model = self.models.get(held.job_id)
        if model is None or (model.status, model.attempt) != (JobStatus.RUNNING, held.attempt):
            return
        lifecycle.finish_failed(held, FailureCode.BAD_DATA, "x")
        model.end(JobStatus.FAILED)

    @rule(held=claims)
    def lose(self, held: ClaimedJob) -> None:
        for lease in list_leases(self.backend):
            if lease.job_id == held.job_id:
                assert expire(self.backend, lease)
                self.models[held.job_id].lose_worker()

    @rule(job_id=job_ids)
    def cancel(self, job_id: str) -> None:
        model = self.models[job_id]
        if model.is_final and model.status is not JobStatus.CANCELLED:
            with pytest.raises(Conflict):
                steering.cancel(self.backend, PROJECT, job_id)
            return
        is_new = model.desired is not Desired.CANCEL
        assert steering.cancel(self.backend, PROJECT, job_id).is_changed is is_new
        model.desired = Desired.CANCEL
        if model.status in (JobStatus.QUEUED, JobStatus.PAUSED):
            model.end(JobStatus.CANCELLED)

    @rule(job_id=job_ids)
    def pause(self, job_id: str) -> None:
        model = self.models[job_id]
        if model.is_final or model.desired is Desired.CANCEL:
            with pytest.raises(Conflict):
                steering.pause(self.backend, PROJECT, job_id)
            return
        assert steering.pause(self.backend, PROJECT, job_id).is_changed is (model.desired is Desired.RUN)
        model.desired = Desired.PAUSE
        if model.status is JobStatus.QUEUED:
            model.status = JobStatus.PAUSED

    @rule(job_id=job_ids)
    def resume(self, job_id: str) -> None:
        model = self.models[job_id]
        if model.is_final or model.desired is Desired.CANCEL:
            with pytest.raises(Conflict):
                steering.resume(self.backend, PROJECT, job_id)
            return
        assert steering.resume(self.backend, PROJECT, job_id).is_changed is (model.desired is Desired.PAUSE)
        model.desired = Desired.RUN
        if model.status is JobStatus.PAUSED:
            model.status = JobStatus.QUEUED

    @rule(job_id=consumes(job_ids))
    def delete(self, job_id: str) -> None:
        if not self.models[job_id].is_final:
            with pytest.raises(Conflict):
                jobs.delete(self.backend, PROJECT, job_id)
            steering.cancel(self.backend, PROJECT, job_id)
            model = self.models[job_id]
            model.desired = Desired.CANCEL
            if model.status is not JobStatus.RUNNING:
                model.end(JobStatus.CANCELLED)
            return
        jobs.delete(self.backend, PROJECT, job_id)
        del self.models[job_id]

    @invariant()
    def jobs_are_as_the_model_says(self) -> None:
        found = {job.id: job for job in jobs.list_page(self.backend, PROJECT, limit=100).data}
        assert found.keys() == self.models.keys()
        for job_id, model in self.models.items():
            job = found[job_id]
            assert (job.status, job.desired, job.attempt) == (model.status, model.desired, model.attempt)

    def teardown(self) -> None:
        for job_id, model in self.models.items():
            steps = [found.step for found in pages.all_points(self.backend, PROJECT, job_id)]
            assert steps == model.steps
            history = events.list_events(self.backend, PROJECT, job_id)
            assert [event.seq for event in history] == list(range(1, len(history) + 1))
            ends = [event for event in history if event.kind in {status.value for status in FINAL_STATUSES}]
            assert len(ends) == model.final_events


def test_random_histories_go_as_the_model_says(backend: Backend) -> None:
    """`STATE_MACHINE_EXAMPLES=2000` for a long run."""
    run_state_machine_as_test(
        lambda: JobHistories(backend),
        settings=settings(
            max_examples=MAX_EXAMPLES,
            stateful_step_count=MAX_STEPS,
            deadline=None,
            database=None,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
