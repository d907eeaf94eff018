"""Jobs and their moves, on both databases."""

import pytest
from backends import PROJECT, add_dataset, checkpoint, claim, point, publication, status, submit

from core.database.repositories.events import EventDraft
from core.database.repositories.jobs import lock_job
from core.database.repositories.transitions import IllegalTransition, Transition, move
from core.domain.errors import Fenced, InvalidRequest
from core.domain.jobs.failure_codes import FailureCode
from core.domain.jobs.job_queries import JobFilter
from core.domain.jobs.job_state import ALLOWED_TRANSITIONS, AttemptOutcome, Desired, JobStatus, Stage
from core.domain.jobs.methods import get_method
from core.services.attempts import lifecycle, recording
from core.services.attempts.checkpoints import mark_checkpoint_corrupt
from core.services.backend import Backend
from core.services.curves import pages
from core.services.datasets import datasets
from core.services.jobs import events, jobs, repeats, steering


@pytest.fixture(autouse=True)
def dataset(backend: Backend) -> str:
    return add_dataset(backend)


def bring_to(backend: Backend, target: JobStatus) -> str:
    """A job in that status, by its proper way."""
    job_id = submit(backend).id
    if target is JobStatus.QUEUED:
        return job_id
    if target is JobStatus.PAUSED:
        steering.pause(backend, PROJECT, job_id)
        return job_id
    held = claim(backend)
    assert held.job_id == job_id
    if target is JobStatus.SUCCEEDED:
        lifecycle.finish_succeeded(held, publication(backend, held))
    elif target is JobStatus.FAILED:
        lifecycle.finish_failed(held, FailureCode.BAD_DATA, "Line 3 is empty.")
    elif target is JobStatus.CANCELLED:
        steering.cancel(backend, PROJECT, job_id)
        lifecycle.finish_cancelled(held)
    return job_id


@pytest.mark.parametrize("source", list(JobStatus))
def test_only_allowed_moves_are_made(backend: Backend, source: JobStatus) -> None:
    job_id = bring_to(backend, source)
    assert status(backend, job_id) == source

    for target in JobStatus:
        if target in ALLOWED_TRANSITIONS[source]:
            continue
        outcome = AttemptOutcome.LOST if source is JobStatus.RUNNING else None
        what = Transition(to=target, event=EventDraft(kind="test", message="test"), outcome=outcome)

        def work(session, what=what):  # type: ignore[no-untyped-def]
            move(session, lock_job(session, job_id), what)  # type: ignore[arg-type]

        with pytest.raises(IllegalTransition):
            backend.database.write(work)
    assert status(backend, job_id) == source


def test_every_move_leaves_one_event_with_the_next_number(backend: Backend) -> None:
    job_id = bring_to(backend, JobStatus.SUCCEEDED)
    found = events.list_events(backend, PROJECT, job_id)
    assert [event.seq for event in found] == list(range(1, len(found) + 1))
    assert [event.kind for event in found] == ["submitted", "started", "succeeded"]
    assert [event.seq for event in events.list_events(backend, PROJECT, job_id, after=1, limit=1)] == [2]


def test_a_submitted_job_shows_what_was_sent_and_what_it_means(backend: Backend) -> None:
    job = submit(backend, name="first", metadata={"team": "a"}, dpo={"epochs": 2})
    assert job.id.startswith("job_")
    assert (job.status, job.desired, job.attempt, job.queue_position) == (JobStatus.QUEUED, Desired.RUN, 0, 1)
    assert job.requested == {
        "base_model": "tiny",
        "dataset_id": "ds_1",
        "name": "first",
        "metadata": {"team": "a"},
        "dpo": {"epochs": 2},
    }
    assert job.spec["beta"] == 0.1
    assert job.spec["dpo"]["epochs"] == 2
    assert job.spec["num_parameters"] == 12
    assert job.spec["num_pairs"] == 100
    assert [stage.status for stage in job.stages] == ["pending"] * len(get_method("preference").stages)
    assert (job.progress.fraction, job.progress.eta_seconds) == (0.0, None)
    assert backend.queue.num_wakes == 1  # type: ignore[attr-defined]


def test_every_fault_of_a_request_is_named_with_its_place(backend: Backend) -> None:
    with pytest.raises(InvalidRequest) as caught:
        submit(
            backend,
            base_model="nowhere",
            dataset_id="ds_none",
            variant="dpo",
            variant_options={"a/b~c": 1},
            sft={"dataset_id": "ds_1"},
        )
    pointers = {error.pointer for error in caught.value.errors}
    assert pointers == {"/base_model", "/dataset_id", "/variant_options/a~1b~0c", "/sft/dataset_id"}


def test_a_job_waits_for_a_data_set_of_its_project_only(backend: Backend) -> None:
    with pytest.raises(jobs.JobNotFound):
        jobs.get(backend, "another", submit(backend).id)


def test_the_queue_is_by_priority_then_by_age(backend: Backend) -> None:
    ids = [submit(backend, priority=priority).id for priority in (0, 5, 0, 5)]
    order = [ids[1], ids[3], ids[0], ids[2]]
    assert [jobs.get(backend, PROJECT, job_id).queue_position for job_id in order] == [1, 2, 3, 4]
    assert [claim(backend).job_id for _ in order] == order
    assert lifecycle.claim(backend, worker="w", host="h", device="cpu") is None


def test_a_patched_priority_moves_a_job_ahead(backend: Backend) -> None:
    first, second = submit(backend).id, submit(backend).id
    changed = jobs.patch(backend, PROJECT, second, {"priority": 1, "name": "hurry"})
    assert (changed.queue_position, changed.name) == (1, "hurry")
    assert [claim(backend).job_id, claim(backend).job_id] == [second, first]


def test_lists_are_stable_while_jobs_come_in(backend: Backend) -> None:
    ids = [submit(backend).id for _ in range(5)]
    seen, cursor = [], None
    while True:
        page = jobs.list_page(backend, PROJECT, limit=2, cursor=cursor)
        seen += [job.id for job in page.data]
        submit(backend)
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == ids[::-1]


def test_lists_are_filtered_by_status_and_metadata(backend: Backend) -> None:
    odd = 'a "quoted" \\ ké.y'
    submit(backend, metadata={odd: "1"})
    wanted = submit(backend, metadata={odd: "2", "team": "x"}).id
    submit(backend, metadata={"team": "x"})

    def found(where: JobFilter) -> list[str]:
        return [job.id for job in jobs.list_page(backend, PROJECT, where).data]

    assert found(JobFilter(metadata={odd: "2"})) == [wanted]
    assert found(JobFilter(metadata={odd: "2", "team": "y"})) == []
    assert len(found(JobFilter(metadata={"team": "x"}))) == 2
    assert len(found(JobFilter(status=JobStatus.QUEUED))) == 3
    assert found(JobFilter(status=JobStatus.FAILED)) == []


@pytest.mark.parametrize("state", [JobStatus.QUEUED, JobStatus.PAUSED])
def test_what_does_not_run_is_cancelled_at_once(backend: Backend, state: JobStatus) -> None:
    job_id = bring_to(backend, state)
    change = steering.cancel(backend, PROJECT, job_id)
    assert (change.is_changed, change.job.status) == (True, JobStatus.CANCELLED)
    assert change.job.finished_at is not None
    assert steering.cancel(backend, PROJECT, job_id).is_changed is False


def test_a_running_job_hears_of_the_wish_in_its_heartbeat(backend: Backend) -> None:
    job_id = submit(backend).id
    held = claim(backend)
    assert lifecycle.heartbeat(held).desired is Desired.RUN

    assert steering.cancel(backend, PROJECT, job_id, save=True).is_changed is True
    assert steering.cancel(backend, PROJECT, job_id).is_changed is False
    reply = lifecycle.heartbeat(held)
    assert (reply.desired, reply.saves_on_cancel) == (Desired.CANCEL, True)
    with pytest.raises(steering.JobNotPausable):
        steering.pause(backend, PROJECT, job_id)
    with pytest.raises(steering.JobNotResumable):
        steering.resume(backend, PROJECT, job_id)

    lifecycle.finish_cancelled(held, publication(backend, held))
    job = jobs.get(backend, PROJECT, job_id)
    assert job.status is JobStatus.CANCELLED
    assert job.artifact is not None


def test_pause_and_resume(backend: Backend) -> None:
    job_id = submit(backend).id
    held = claim(backend)
    assert steering.pause(backend, PROJECT, job_id).is_changed is True
    assert steering.pause(backend, PROJECT, job_id).is_changed is False
    lifecycle.finish_paused(held)
    assert status(backend, job_id) == "paused"
    with pytest.raises(Fenced):
        lifecycle.heartbeat(held)

    assert steering.resume(backend, PROJECT, job_id).job.status is JobStatus.QUEUED
    assert steering.resume(backend, PROJECT, job_id).is_changed is False
    assert claim(backend).attempt == 2


def test_a_pause_taken_back_before_the_worker_stopped_queues_the_job(backend: Backend) -> None:
    job_id = submit(backend).id
    held = claim(backend)
    steering.pause(backend, PROJECT, job_id)
    assert steering.resume(backend, PROJECT, job_id).is_changed is True
    lifecycle.finish_paused(held)
    assert status(backend, job_id) == "queued"


def test_a_cancel_that_comes_while_pausing_wins(backend: Backend) -> None:
    job_id = submit(backend).id
    held = claim(backend)
    steering.pause(backend, PROJECT, job_id)
    steering.cancel(backend, PROJECT, job_id)
    lifecycle.finish_paused(held)
    assert status(backend, job_id) == "cancelled"


@pytest.mark.parametrize("state", [JobStatus.SUCCEEDED, JobStatus.FAILED])
def test_finished_jobs_stay_finished(backend: Backend, state: JobStatus) -> None:
    job_id = bring_to(backend, state)
    with pytest.raises(steering.JobNotCancellable):
        steering.cancel(backend, PROJECT, job_id)
    with pytest.raises(steering.JobNotPausable):
        steering.pause(backend, PROJECT, job_id)
    with pytest.raises(steering.JobNotResumable):
        steering.resume(backend, PROJECT, job_id)
    assert status(backend, job_id) == state


def test_a_failed_job_says_why(backend: Backend) -> None:
    error = jobs.get(backend, PROJECT, bring_to(backend, JobStatus.FAILED)).error
    assert error is not None
    assert (error.code, error.title, error.detail) == (
        FailureCode.BAD_DATA,
        "The data cannot be trained on",
        "Line 3 is empty.",
    )


def test_retry_goes_on_from_the_newest_checkpoint_with_its_curve(backend: Backend) -> None:
    source_id = submit(backend, name="mine", metadata={"k": "v"}).id
    held = claim(backend)
    lifecycle.begin(held)
    recording.record_points(held, [point(step) for step in (1, 2, 3)])
    checkpoint(backend, held, 1)
    checkpoint(backend, held, 2)
    lifecycle.finish_failed(held, FailureCode.DISK_FULL, "Free some space.")

    retried = repeats.retry(backend, PROJECT, source_id)
    assert retried.id != source_id
    assert (retried.status, retried.source_job_id, retried.name) == (JobStatus.QUEUED, source_id, "mine")
    taken = claim(backend)
    assert taken.job_id == retried.id
    resumed = lifecycle.begin(taken)
    assert resumed is not None
    assert (resumed.stage, resumed.step) == (Stage.DPO, 2)
    recording.record_points(taken, [point(3)])
    head = jobs.list_heads(backend, [retried.id])[retried.id]
    assert head.last_metric_seq == 3


def test_a_retried_job_falls_back_when_the_newest_checkpoint_is_damaged(backend: Backend) -> None:
    source_id = submit(backend).id
    held = claim(backend)
    lifecycle.begin(held)
    recording.record_points(held, [point(step) for step in (1, 2, 3)])
    checkpoint(backend, held, 1)
    checkpoint(backend, held, 3)
    lifecycle.finish_failed(held, FailureCode.DISK_FULL, "Free some space.")

    repeats.retry(backend, PROJECT, source_id)
    taken = claim(backend)
    newest = lifecycle.begin(taken)
    assert newest is not None
    assert newest.step == 3
    mark_checkpoint_corrupt(taken, newest.checkpoint_id, "one byte has changed.")
    older = lifecycle.begin(taken)
    assert older is not None
    assert older.step == 1
    assert [shown.step for shown in pages.all_points(backend, PROJECT, taken.job_id)] == [1]


def test_only_failed_and_cancelled_jobs_are_retried(backend: Backend) -> None:
    for state in (JobStatus.QUEUED, JobStatus.SUCCEEDED):
        with pytest.raises(repeats.JobNotRetryable):
            repeats.retry(backend, PROJECT, bring_to(backend, state))
        jobs_left = lifecycle.claim(backend, worker="w", host="h", device="cpu")
        if jobs_left:
            lifecycle.finish_failed(jobs_left, FailureCode.INTERNAL, "done with it")


def test_a_job_may_start_from_a_policy_and_then_keeps_it(backend: Backend) -> None:
    base = bring_to(backend, JobStatus.SUCCEEDED)
    tuned = submit(backend, base_model=base)
    assert tuned.spec["base_model"] == base
    assert tuned.spec["num_parameters"] == 12
    with pytest.raises(jobs.JobNotDeletable):
        jobs.delete(backend, PROJECT, base)
    steering.cancel(backend, PROJECT, tuned.id)
    jobs.delete(backend, PROJECT, base)
    with pytest.raises(InvalidRequest):
        submit(backend, base_model=base)


def test_a_job_is_deleted_with_all_that_hangs_on_it(backend: Backend) -> None:
    job_id = submit(backend).id
    held = claim(backend)
    lifecycle.begin(held)
    recording.record_points(held, [point(1)])
    recording.record_samples(held, 1, [{"prompt": "p", "reference": "r", "policy": "y"}])
    checkpoint(backend, held, 1)
    with pytest.raises(jobs.JobNotDeletable):
        jobs.delete(backend, PROJECT, job_id)
    lifecycle.finish_succeeded(held, publication(backend, held))
    jobs.delete(backend, PROJECT, job_id)
    with pytest.raises(jobs.JobNotFound):
        jobs.get(backend, PROJECT, job_id)


def test_a_data_set_is_not_deleted_under_a_live_job(backend: Backend) -> None:
    job_id = submit(backend).id
    with pytest.raises(datasets.DatasetInUse):
        datasets.delete(backend, PROJECT, "ds_1")
    steering.cancel(backend, PROJECT, job_id)
    datasets.delete(backend, PROJECT, "ds_1")
    assert jobs.get(backend, PROJECT, job_id).spec["dataset_id"] == "ds_1"
    with pytest.raises(InvalidRequest):
        submit(backend)
