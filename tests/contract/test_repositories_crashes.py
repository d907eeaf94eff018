"""What crashes, outages and drains cost a job, on both databases."""

import pytest
from backends import (
    PROJECT,
    add_dataset,
    checkpoint,
    claim,
    make_due,
    status,
    submit,
)

from core.domain.failure_codes import FailureCode
from core.domain.job_state import MAX_CRASHES, AttemptOutcome, JobStatus
from core.services.attempts import lifecycle, requeue
from core.services.backend import Backend
from core.services.jobs import jobs


@pytest.fixture(autouse=True)
def dataset(backend: Backend) -> str:
    return add_dataset(backend)


def test_crashes_cost_and_the_third_without_progress_ends_the_job(backend: Backend) -> None:
    job_id = submit(backend).id
    for number in range(1, MAX_CRASHES + 1):
        held = claim(backend)
        became = lifecycle.release(backend, held, AttemptOutcome.CRASHED, "Exit code -11.")
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
        lifecycle.release(backend, claim(backend), AttemptOutcome.CRASHED, "Free some space.", FailureCode.DISK_FULL)
        make_due(backend)
    error = jobs.get(backend, PROJECT, job_id).error
    assert error is not None
    assert error.code is FailureCode.DISK_FULL
    assert "Free some space." in error.detail


def test_outages_are_free_but_not_for_ever(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requeue, "MAX_OUTAGES", 4)
    job_id = submit(backend).id
    for _ in range(3):
        lifecycle.release(backend, claim(backend), AttemptOutcome.OUTAGE)
        make_due(backend)
    held = claim(backend)
    checkpoint(backend, held, 1)  # progress: the count starts anew
    for _ in range(4):
        assert lifecycle.release(backend, held, AttemptOutcome.OUTAGE) is JobStatus.QUEUED
        make_due(backend)
        held = claim(backend)
    assert lifecycle.release(backend, held, AttemptOutcome.OUTAGE) is JobStatus.FAILED
    error = jobs.get(backend, PROJECT, job_id).error
    assert error is not None
    assert error.code is FailureCode.STORE_UNAVAILABLE


def test_a_checkpoint_forgives_earlier_crashes(backend: Backend) -> None:
    job_id = submit(backend).id
    for number in range(1, 3 * MAX_CRASHES):
        held = claim(backend)
        checkpoint(backend, held, number)
        assert lifecycle.release(backend, held, AttemptOutcome.CRASHED) is JobStatus.QUEUED
        make_due(backend)
    assert jobs.get(backend, PROJECT, job_id).attempt == 3 * MAX_CRASHES - 1


@pytest.mark.parametrize("outcome", [AttemptOutcome.DRAINED, AttemptOutcome.OUTAGE])
def test_what_the_job_is_not_to_blame_for_is_free(backend: Backend, outcome: AttemptOutcome) -> None:
    job_id = submit(backend).id
    for _ in range(2 * MAX_CRASHES):
        lifecycle.release(backend, claim(backend), outcome)
        make_due(backend)
    assert status(backend, job_id) == "queued"


def test_a_drained_job_can_be_taken_at_once(backend: Backend) -> None:
    job_id = submit(backend).id
    lifecycle.release(backend, claim(backend), AttemptOutcome.DRAINED)
    assert claim(backend).job_id == job_id
