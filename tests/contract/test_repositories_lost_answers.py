"""Commits whose answer is lost: every write is run a second time after it was committed, and changes nothing more."""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import pytest
from backends import PROJECT, add_dataset, checkpoint, claim, point, publication, submit
from sqlalchemy import select
from sqlalchemy.orm import Session

from core.database.session import Database
from core.database.tables.jobs import Attempt, Job
from core.database.tables.objects import Checkpoint
from core.database.tables.records import JobEvent
from core.database.tables.records import MetricPoint as PointRow
from core.domain.errors import Fenced
from core.domain.jobs.failure_codes import FailureCode
from core.domain.jobs.job_state import AttemptOutcome, Stage
from core.domain.jobs.stored_files import StoredTree
from core.domain.trainer_protocol import Progress, StageChanged, TrainerEvent
from core.services.attempts import checkpoints, lifecycle, recording
from core.services.attempts.checkpoints import NewStageOutput
from core.services.backend import Backend
from core.services.datasets import datasets
from core.services.jobs import jobs, repeats, steering
from core.services.operations import sweep

Result = TypeVar("Result")


class ForgetfulDatabase(Database):
    """Does what it is told, and is asked again because its answer did not arrive."""

    def write(self, work: Callable[[Session], Result]) -> Result:
        super().write(work)
        return super().write(work)


@pytest.fixture
def forgetful(backend: Backend) -> Backend:
    add_dataset(backend)
    return replace(backend, database=ForgetfulDatabase(backend.database.engine))


def rows_of(backend: Backend, table: type, job_id: str) -> list[object]:
    statement = select(table).where(table.job_id == job_id)  # type: ignore[attr-defined]
    return backend.database.read(lambda session: list(session.scalars(statement)))


def kinds(backend: Backend, job_id: str) -> list[str]:
    statement = select(JobEvent.kind).where(JobEvent.job_id == job_id).order_by(JobEvent.seq)
    return backend.database.read(lambda session: list(session.scalars(statement)))


def test_a_whole_run(forgetful: Backend) -> None:
    job_id = submit(forgetful).id
    held = claim(forgetful)
    assert (held.job_id, held.attempt) == (job_id, 1)
    lifecycle.begin(held)
    recording.stage_changed(held, StageChanged(stage="dpo", status="started", total_steps=3))
    recording.record_points(held, [point(1), point(2)])
    recording.record_progress(held, Progress(stage="dpo", step=2, total_steps=3))
    recording.record_events(held, [TrainerEvent(level="info", kind="note", message="x")])
    recording.record_samples(held, 1, [{"prompt": "p", "reference": "r", "policy": "q"}])
    checkpoint(forgetful, held, 1)
    checkpoint(forgetful, held, 2)
    output = NewStageOutput(
        stage=Stage.SFT, digest="4" * 64, tree=StoredTree(prefix="p/", manifest_sha256="5" * 64), num_bytes=1
    )
    checkpoints.commit_stage_output(held, output)
    assert steering.pause(forgetful, PROJECT, job_id).job.desired.value == "pause"
    lifecycle.finish_paused(held)
    steering.resume(forgetful, PROJECT, job_id)
    held = claim(forgetful)
    assert held.attempt == 2
    resumed = lifecycle.begin(held)
    assert resumed is not None
    checkpoints.mark_checkpoint_corrupt(held, resumed.checkpoint_id, "x")
    older = lifecycle.begin(held)
    assert older is not None
    assert older.step == 1
    recording.record_points(held, [point(2), point(3)])
    lifecycle.finish_succeeded(held, publication(forgetful, held))
    assert jobs.get(forgetful, PROJECT, job_id).status.value == "succeeded"
    assert len(rows_of(forgetful, Attempt, job_id)) == 2
    assert len(rows_of(forgetful, Checkpoint, job_id)) == 2
    assert sorted(row.step for row in rows_of(forgetful, PointRow, job_id)) == [1, 2, 3]  # type: ignore[attr-defined]
    assert kinds(forgetful, job_id) == [
        "submitted",
        "started",
        "stage",
        "note",
        "checkpoint",
        "checkpoint",
        "pause_requested",
        "paused",
        "resumed",
        "started",
        "resumed",
        "checkpoint_corrupt",
        "resumed",
        "succeeded",
    ]


@pytest.mark.parametrize("outcome", [AttemptOutcome.CRASHED, AttemptOutcome.DRAINED, AttemptOutcome.OUTAGE])
def test_a_job_handed_back(forgetful: Backend, outcome: AttemptOutcome) -> None:
    job_id = submit(forgetful).id
    held = claim(forgetful)
    lifecycle.release(held, outcome)
    job = forgetful.database.read(lambda session: session.get(Job, job_id))
    assert job is not None
    assert (job.status.value, job.crash_count) == ("queued", outcome is AttemptOutcome.CRASHED)
    assert kinds(forgetful, job_id).count("requeued") == 1


def test_a_failure_a_retry_and_the_deletion_of_both(forgetful: Backend) -> None:
    job_id = submit(forgetful).id
    held = claim(forgetful)
    checkpoint(forgetful, held, 1)
    lifecycle.finish_failed(held, FailureCode.BAD_DATA, "x")
    retried = repeats.retry(forgetful, PROJECT, job_id)
    assert len(rows_of(forgetful, Checkpoint, retried.id)) == 1
    jobs.delete(forgetful, PROJECT, job_id)
    steering.cancel(forgetful, PROJECT, retried.id)
    jobs.delete(forgetful, PROJECT, retried.id)
    datasets.delete(forgetful, PROJECT, "ds_1")
    with pytest.raises(jobs.JobNotFound):
        jobs.delete(forgetful, PROJECT, job_id)


def test_a_cancelled_run_and_a_lease_taken_away(forgetful: Backend) -> None:
    job_id = submit(forgetful).id
    held = claim(forgetful)
    steering.cancel(forgetful, PROJECT, job_id, save=True)
    lifecycle.finish_cancelled(held, publication(forgetful, held))
    assert kinds(forgetful, job_id).count("cancelled") == 1

    other_id = submit(forgetful).id
    held = claim(forgetful)
    (lease,) = sweep.list_leases(forgetful)
    sweep.expire(forgetful, lease)
    assert kinds(forgetful, other_id).count("requeued") == 1
    with pytest.raises(Fenced):
        lifecycle.heartbeat(held)
