"""What crashes, outages and drains cost a job, on both databases."""

import pytest
from backends import (
    PROJECT,
    add_dataset,
    checkpoint,
    claim,
    lose,
    make_due,
    publication,
    status,
    submit,
)

from core.domain.jobs.failure_codes import FailureCode
from core.domain.jobs.job_state import (
    MAX_CRASHES,
    MAX_LOSSES_AT_ONE_STEP,
    MIN_POISONED_HOSTS,
    AttemptOutcome,
    JobStatus,
)
from core.domain.trainer_protocol import Progress, StageChanged
from core.services.attempts import lifecycle, recording, requeue
from core.services.attempts.claimed_job import ClaimedJob
from core.services.backend import Backend
from core.services.jobs import jobs


@pytest.fixture(autouse=True)
def dataset(backend: Backend) -> str:
    return add_dataset(backend)


def test_crashes_cost_and_the_third_without_progress_ends_the_job(backend: Backend) -> None:
    job_id = submit(backend).id
    for number in range(1, MAX_CRASHES + 1):
        held = claim(backend)
        became = lifecycle.release(held, AttemptOutcome.CRASHED, "Exit code -11.")
        assert became is (JobStatus.FAILED if number == MAX_CRASHES else JobStatus.QUEUED)
        if number < MAX_CRASHES:
            assert lifecycle.claim(backend, worker="w", host="h", device="cpu") is None, "must back off"
            make_due(backend)
    error = jobs.get(backend, PROJECT, job_id).error
    assert error is not None
    assert error.code is FailureCode.CRASH_LOOP
    assert "Exit code -11." in error.detail


def test_a_job_given_up_for_a_known_cause_says_so(backend: Backend) -> None:
    job_id = submit(backend).id
    for _ in range(MAX_CRASHES):
        lifecycle.release(claim(backend), AttemptOutcome.CRASHED, "Free some space.", FailureCode.DISK_FULL)
        make_due(backend)
    error = jobs.get(backend, PROJECT, job_id).error
    assert error is not None
    assert error.code is FailureCode.DISK_FULL
    assert "Free some space." in error.detail


def test_outages_are_free_but_not_for_ever(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requeue, "MAX_OUTAGES", 4)
    job_id = submit(backend).id
    for _ in range(3):
        lifecycle.release(claim(backend), AttemptOutcome.OUTAGE)
        make_due(backend)
    held = claim(backend)
    checkpoint(backend, held, 1)  # progress: the count starts anew
    for _ in range(4):
        assert lifecycle.release(held, AttemptOutcome.OUTAGE) is JobStatus.QUEUED
        make_due(backend)
        held = claim(backend)
    assert lifecycle.release(held, AttemptOutcome.OUTAGE) is JobStatus.FAILED
    error = jobs.get(backend, PROJECT, job_id).error
    assert error is not None
    assert error.code is FailureCode.STORE_UNAVAILABLE


def test_a_checkpoint_forgives_earlier_crashes(backend: Backend) -> None:
    job_id = submit(backend).id
    for number in range(1, 3 * MAX_CRASHES):
        held = claim(backend)
        checkpoint(backend, held, number)
        assert lifecycle.release(held, AttemptOutcome.CRASHED) is JobStatus.QUEUED
        make_due(backend)
    assert jobs.get(backend, PROJECT, job_id).attempt == 3 * MAX_CRASHES - 1


@pytest.mark.parametrize("outcome", [AttemptOutcome.DRAINED, AttemptOutcome.OUTAGE])
def test_what_the_job_is_not_to_blame_for_is_free(backend: Backend, outcome: AttemptOutcome) -> None:
    job_id = submit(backend).id
    for _ in range(2 * MAX_CRASHES):
        lifecycle.release(claim(backend), outcome)
        make_due(backend)
    assert status(backend, job_id) == "queued"


def test_a_drained_job_can_be_taken_at_once(backend: Backend) -> None:
    job_id = submit(backend).id
    lifecycle.release(claim(backend), AttemptOutcome.DRAINED)
    assert claim(backend).job_id == job_id


def take(backend: Backend, host: str, *, step: int = 0) -> ClaimedJob:
    """A worker takes the next job and comes as far as that step."""
    held = lifecycle.claim(backend, worker=f"worker on {host}", host=host, device="cpu")
    assert held is not None
    if step:
        recording.stage_changed(held, StageChanged(stage="dpo", status="started"))
        recording.record_progress(held, Progress(stage="dpo", step=step, total_steps=100))
    return held


def vanish(backend: Backend, host: str, *, step: int = 0) -> str:
    """One worker takes the job, and is not heard of again; returns what became of it."""
    make_due(backend)
    held = take(backend, host, step=step)
    lose(backend, held)
    return status(backend, held.job_id)


def test_workers_that_vanish_are_no_crashes_of_the_job(backend: Backend) -> None:
    """Three workers, ten times in a row before a checkpoint: their jobs still end well."""
    job_ids = [submit(backend).id for _ in range(3)]
    for number in range(10):
        make_due(backend)
        held = [take(backend, f"spot-{worker}", step=number) for worker in range(3)]
        for each in held:
            lose(backend, each)
        assert {status(backend, job_id) for job_id in job_ids} == {"queued"}
    make_due(backend)
    for _ in job_ids:
        last = claim(backend)
        lifecycle.finish_succeeded(last, publication(backend, last))
    assert {status(backend, job_id) for job_id in job_ids} == {"succeeded"}


def test_vanished_workers_are_bounded(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requeue, "MAX_LOSSES", 4)
    job_id = submit(backend).id
    assert [vanish(backend, "spot") for _ in range(4)] == ["queued"] * 3 + ["failed"]
    error = jobs.get(backend, PROJECT, job_id).error
    assert error is not None
    assert error.code is FailureCode.CRASH_LOOP
    assert "4 workers vanished" in error.detail


def test_a_job_that_kills_workers_at_one_step_on_several_machines_does_not_go_on(backend: Backend) -> None:
    job_id = submit(backend).id
    became = [
        vanish(backend, f"host-{number % MIN_POISONED_HOSTS}", step=7) for number in range(MAX_LOSSES_AT_ONE_STEP)
    ]
    assert became == ["queued"] * (MAX_LOSSES_AT_ONE_STEP - 1) + ["failed"]
    error = jobs.get(backend, PROJECT, job_id).error
    assert error is not None
    assert "dpo step 7" in error.detail
    assert "host-0, host-1, host-2" in error.detail


def test_one_bad_machine_is_not_the_jobs_fault(backend: Backend) -> None:
    submit(backend)
    assert {vanish(backend, "bad", step=7) for _ in range(2 * MAX_LOSSES_AT_ONE_STEP)} == {"queued"}


def test_a_trainer_that_dies_counts_whoever_vanished_before(backend: Backend) -> None:
    job_id = submit(backend).id
    for number in range(1, MAX_CRASHES + 1):
        vanish(backend, "spot", step=number)
        make_due(backend)
        lifecycle.release(claim(backend), AttemptOutcome.CRASHED)
    assert status(backend, job_id) == "failed"


def test_a_checkpoint_forgives_vanished_workers(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requeue, "MAX_LOSSES", 3)
    job_id = submit(backend).id
    for _ in range(4):
        assert vanish(backend, "spot") == "queued"
        make_due(backend)
        held = claim(backend)
        checkpoint(backend, held, held.attempt)
        lose(backend, held)
    assert status(backend, job_id) == "queued"
