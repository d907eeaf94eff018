"""Leases, fences, points and their rewind, on both databases."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from backends import (
    LEASE_SECONDS,
    PROJECT,
    add_dataset,
    checkpoint,
    checkpoint_with_policy,
    claim,
    point,
    publication,
    status,
    submit,
)
from sqlalchemy import text
from sqlalchemy.orm import Session

from core.database.repositories import attempts as attempt_rows
from core.database.repositories import jobs as job_rows
from core.domain.errors import Conflict, DomainError, Fenced
from core.domain.failure_codes import FailureCode
from core.domain.job_state import MAX_CRASHES, AttemptOutcome, JobStatus, Stage
from core.domain.trainer_protocol import Progress, StageChanged, TrainerEvent
from core.services import (
    attempts,
    base_models,
    checkpoints,
    events,
    garbage_collection,
    jobs,
    metrics,
    policies,
    recording,
    requeue,
    sweep,
)
from core.services.attempts import Claim
from core.services.backend import Backend
from core.services.metrics import MetricsQuery
from core.services.sweep import Lease, LeaseWatch, Sweeper, expire, list_leases
from core.storage import keys


@pytest.fixture(autouse=True)
def dataset(backend: Backend) -> str:
    return add_dataset(backend)


def lose(backend: Backend, held: Claim) -> None:
    """Take the job away as the sweeper does once it is sure."""
    lease = next(lease for lease in list_leases(backend) if lease.job_id == held.job_id)
    assert expire(backend, lease)


def make_due(backend: Backend) -> None:
    """End every back-off."""
    backend.database.write(lambda session: session.execute(text("UPDATE jobs SET next_run_at = created_at")))


def curve(backend: Backend, job_id: str) -> list[tuple[str, str, int, float | None]]:
    return [
        (found.stage.value, found.split, found.step, found.values["loss"])
        for found in metrics.all_points(backend, PROJECT, job_id)
    ]


def test_eight_threads_race_for_jobs_and_each_job_is_claimed_once(backend: Backend) -> None:
    ids = [submit(backend).id for _ in range(12)]
    barrier = threading.Barrier(8)

    def work(number: int) -> list[str]:
        barrier.wait()
        taken = []
        while held := attempts.claim(backend, worker=f"w{number}", host="h", device="cpu"):
            taken.append(held.job_id)
        return taken

    with ThreadPoolExecutor(8) as pool:
        claimed = [job_id for taken in pool.map(work, range(8)) for job_id in taken]
    assert sorted(claimed) == ids
    assert all(jobs.get(backend, PROJECT, job_id).attempt == 1 for job_id in ids)


WRITES: list[Callable[[Backend, Claim], Any]] = [
    attempts.heartbeat,
    attempts.begin,
    lambda backend, held: attempts.record_resolved_spec(backend, held, {"seed": 666}),
    lambda backend, held: recording.record_points(backend, held, [point(1)]),
    lambda backend, held: recording.record_progress(backend, held, Progress(stage="sft", step=1, total_steps=2)),
    lambda backend, held: recording.stage_changed(backend, held, StageChanged(stage="sft", status="started")),
    lambda backend, held: recording.record_events(
        backend, held, [TrainerEvent(level="info", kind="x", message="stale")]
    ),
    lambda backend, held: recording.record_samples(
        backend, held, 1, [{"prompt": "p", "reference": "r", "policy": "y"}]
    ),
    lambda backend, held: checkpoint(backend, held, 1),
    lambda backend, held: checkpoints.mark_checkpoint_corrupt(backend, held, "ckpt_1", "bad"),
    lambda backend, held: checkpoints.commit_stage_output(
        backend,
        held,
        checkpoints.NewStageOutput(
            stage=Stage.SFT,
            digest="d" * 64,
            tree=attempts.StoredTree(prefix="projects/default/jobs/x/a1/stages/d/", manifest_sha256="1" * 64),
            num_bytes=1,
        ),
    ),
    lambda backend, held: checkpoints.drop_stage_output(backend, held, "d" * 64),
    lambda backend, held: attempts.finish_succeeded(backend, held, publication(backend, held)),
    lambda backend, held: attempts.finish_failed(backend, held, FailureCode.INTERNAL, "stale"),
    attempts.finish_cancelled,
    attempts.finish_paused,
    lambda backend, held: attempts.release(backend, held, AttemptOutcome.DRAINED),
    lambda backend, held: attempts.release(backend, held, AttemptOutcome.CRASHED),
]


def snapshot(backend: Backend, job_id: str) -> list[Any]:
    tables = ("jobs", "attempts", "job_stages", "checkpoints", "metric_points", "job_events", "job_samples")
    where = {table: "id" if table == "jobs" else "job_id" for table in (*tables, "artifacts")}
    return [
        backend.database.read(
            lambda session, table=table, column=column: sorted(  # type: ignore[misc]
                map(str, session.execute(text(f"SELECT * FROM {table} WHERE {column} = :id"), {"id": job_id}))
            )
        )
        for table, column in where.items()
    ]


def test_no_write_of_a_replaced_worker_is_accepted(backend: Backend) -> None:
    job_id = submit(backend).id
    zombie = claim(backend, "zombie")
    lose(backend, zombie)
    make_due(backend)
    before = snapshot(backend, job_id)
    for write in WRITES:
        with pytest.raises(Fenced):
            write(backend, zombie)
    assert snapshot(backend, job_id) == before

    successor = claim(backend, "successor")
    assert (successor.job_id, successor.attempt) == (job_id, 2)
    before = snapshot(backend, job_id)
    for write in WRITES:
        with pytest.raises(Fenced):
            write(backend, zombie)
    assert snapshot(backend, job_id) == before
    attempts.finish_succeeded(backend, successor, publication(backend, successor))
    assert status(backend, job_id) == "succeeded"


def test_a_repeated_claim_after_a_lost_answer_finds_its_job(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = submit(backend).id, submit(backend).id
    write = backend.database.write

    def twice(work: Callable[..., Any]) -> Any:
        write(work)
        return write(work)

    monkeypatch.setattr(backend.database, "write", twice)
    held = attempts.claim(backend, worker="w", host="h", device="cpu")
    monkeypatch.undo()
    assert held is not None
    assert held.job_id == first
    assert status(backend, second) == "queued"


def test_every_write_may_be_repeated_after_a_lost_answer(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    write = backend.database.write

    def twice(work: Callable[..., Any]) -> Any:
        write(work)
        return write(work)

    monkeypatch.setattr(backend.database, "write", twice)
    job_id = submit(backend).id
    held = claim(backend)
    attempts.begin(backend, held)
    recording.stage_changed(backend, held, StageChanged(stage="dpo", status="started", total_steps=9))
    recording.record_points(backend, held, [point(1), point(2)])
    recording.record_events(backend, held, [TrainerEvent(level="info", kind="a", message="once")] * 2)
    recording.record_samples(backend, held, 2, [{"prompt": "p", "reference": "r", "policy": "y"}])
    checkpoint(backend, held, 2)
    kinds = [event.kind for event in events.list_events(backend, PROJECT, job_id)]
    assert kinds == ["submitted", "started", "stage", "a", "a", "checkpoint"]
    assert len(events.list_samples(backend, PROJECT, job_id)) == 1
    assert [found.seq for found in metrics.all_points(backend, PROJECT, job_id)] == [1, 2]


@pytest.mark.parametrize(
    "finish",
    [
        lambda backend, held: attempts.finish_succeeded(backend, held, publication(backend, held)),
        lambda backend, held: attempts.finish_failed(backend, held, FailureCode.GPU_OOM, "Take less."),
        attempts.finish_paused,
        lambda backend, held: attempts.release(backend, held, AttemptOutcome.CRASHED, "It died."),
    ],
)
def test_a_finish_may_be_repeated(backend: Backend, finish: Callable[[Backend, Claim], Any]) -> None:
    job_id = submit(backend).id
    held = claim(backend)
    finish(backend, held)
    before = snapshot(backend, job_id)
    finish(backend, held)
    assert snapshot(backend, job_id) == before


def test_cancel_races_with_finish_and_one_of_them_wins(backend: Backend) -> None:
    for _ in range(8):
        job_id = submit(backend).id
        held = claim(backend)
        published = publication(backend, held)
        barrier = threading.Barrier(2)

        def finish(held: Claim = held, published: Any = published, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            attempts.finish_succeeded(backend, held, published)

        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(finish)
            barrier.wait()
            try:
                answer = jobs.cancel(backend, PROJECT, job_id).job
                assert (answer.status, answer.desired) == (JobStatus.RUNNING, "cancel")
            except jobs.JobNotCancellable:
                pass
            done.result()
        assert status(backend, job_id) == "succeeded"
        ends = [event for event in events.list_events(backend, PROJECT, job_id) if event.kind == "succeeded"]
        assert len(ends) == 1


def test_nobody_cancels_a_job_that_nobody_wanted_cancelled(backend: Backend) -> None:
    submit(backend)
    with pytest.raises(Conflict):
        attempts.finish_cancelled(backend, claim(backend))


def test_points_are_numbered_in_order_and_kept_once(backend: Backend) -> None:
    job_id = submit(backend).id
    held = claim(backend)
    attempts.begin(backend, held)
    recording.record_points(backend, held, [point(1, 0.7), point(1, 0.6, split="validation"), point(2, 0.5)])
    recording.record_points(backend, held, [point(2, 0.9), point(3, 0.4), point(3, 0.1)])
    recording.record_points(backend, held, [])
    assert curve(backend, job_id) == [
        ("dpo", "train", 1, 0.7),
        ("dpo", "validation", 1, 0.6),
        ("dpo", "train", 2, 0.5),
        ("dpo", "train", 3, 0.4),
    ]


def test_values_that_are_not_finite_become_null(backend: Backend) -> None:
    job_id = submit(backend).id
    held = claim(backend)
    recording.record_points(backend, held, [point(1, float("nan"), a=float("inf"), b=1.5)])
    assert metrics.all_points(backend, PROJECT, job_id)[0].values == {"loss": None, "a": None, "b": 1.5}


def test_a_resume_takes_back_what_lies_beyond_its_checkpoint(backend: Backend) -> None:
    job_id = submit(backend).id
    first = claim(backend)
    assert attempts.begin(backend, first) is None
    recording.record_points(backend, first, [point(1, stage="sft"), point(1), point(2), point(3)])
    checkpoint(backend, first, 1)
    before = metrics.page(backend, PROJECT, job_id, MetricsQuery())
    assert (before.last_seq, before.reset) == (4, False)
    lose(backend, first)

    second = claim(backend)
    resumed = attempts.begin(backend, second)
    assert resumed is not None
    assert (resumed.stage, resumed.step) == (Stage.DPO, 1)
    assert attempts.begin(backend, second) == resumed
    kept = [("sft", "train", 1, 0.5), ("dpo", "train", 1, 0.5)]
    assert curve(backend, job_id) == kept

    after = metrics.page(backend, PROJECT, job_id, MetricsQuery(after=before.last_seq))
    assert after.reset is True
    assert [found.step for found in after.points] == [1, 1]
    calm = metrics.page(backend, PROJECT, job_id, MetricsQuery(after=after.last_seq))
    assert (calm.reset, calm.points, calm.has_more) == (False, [], False)

    recording.record_points(backend, second, [point(2), point(3)])
    new = metrics.page(backend, PROJECT, job_id, MetricsQuery(after=calm.last_seq))
    assert (new.reset, [found.step for found in new.points]) == (False, [2, 3])
    assert curve(backend, job_id) == [*kept, ("dpo", "train", 2, 0.5), ("dpo", "train", 3, 0.5)]


def test_a_rewind_to_the_start_is_seen_although_nothing_is_left(backend: Backend) -> None:
    job_id = submit(backend).id
    first = claim(backend)
    recording.record_points(backend, first, [point(1), point(2)])
    lose(backend, first)
    make_due(backend)
    attempts.begin(backend, claim(backend))
    page = metrics.page(backend, PROJECT, job_id, MetricsQuery(after=2))
    assert (page.reset, page.points) == (True, [])


def test_a_replayed_step_that_differs_is_told_once(backend: Backend) -> None:
    job_id = submit(backend).id
    first = claim(backend)
    attempts.begin(backend, first)
    replayed = [point(step, 0.5, tokens_per_second=100.0, peak_memory_bytes=step) for step in (1, 2, 3, 4)]
    recording.record_points(backend, first, replayed)
    checkpoint(backend, first, 1)
    lose(backend, first)

    second = claim(backend)
    attempts.begin(backend, second)
    recording.record_points(backend, second, [point(2, 0.5, tokens_per_second=7.0, peak_memory_bytes=9.0)])
    assert "resume_divergence" not in [event.kind for event in events.list_events(backend, PROJECT, job_id)]
    recording.record_points(backend, second, [point(3, 0.5000001, tokens_per_second=7.0)])
    recording.record_points(backend, second, [point(4, 0.6, tokens_per_second=7.0)])
    told = [event for event in events.list_events(backend, PROJECT, job_id) if event.kind == "resume_divergence"]
    assert [(event.level, event.data["step"]) for event in told] == [("warning", 3)]
    assert told[0].data["before"]["loss"] == 0.5
    assert told[0].data["after"]["loss"] == 0.5000001


def test_rewound_values_survive_a_second_crash_before_they_are_replayed(backend: Backend) -> None:
    job_id = submit(backend).id
    first = claim(backend)
    recording.record_points(backend, first, [point(1), point(2), point(3)])
    checkpoint(backend, first, 1)
    lose(backend, first)
    second = claim(backend)
    attempts.begin(backend, second)
    recording.record_points(backend, second, [point(2)])
    lose(backend, second)
    make_due(backend)
    third = claim(backend)
    attempts.begin(backend, third)
    recording.record_points(backend, third, [point(2), point(3, 0.9)])
    kinds = [event.kind for event in events.list_events(backend, PROJECT, job_id)]
    assert kinds.count("resume_divergence") == 1


def test_a_corrupt_checkpoint_is_set_aside_for_the_one_before(backend: Backend) -> None:
    job_id = submit(backend).id
    first = claim(backend)
    attempts.begin(backend, first)
    recording.record_points(backend, first, [point(step) for step in (1, 2, 3)])
    checkpoint(backend, first, 1)
    newest = checkpoint(backend, first, 2)
    lose(backend, first)

    second = claim(backend)
    resumed = attempts.begin(backend, second)
    assert resumed is not None
    assert resumed.checkpoint_id == newest
    checkpoints.mark_checkpoint_corrupt(backend, second, newest, "One byte differs.")
    checkpoints.mark_checkpoint_corrupt(backend, second, newest, "One byte differs.")
    resumed = attempts.begin(backend, second)
    assert resumed is not None
    assert resumed.step == 1
    assert [step for _, _, step, _ in curve(backend, job_id)] == [1]
    assert [item.step for item in policies.list_checkpoints(backend, PROJECT, job_id)] == [1]
    told = [event for event in events.list_events(backend, PROJECT, job_id) if event.kind == "checkpoint_corrupt"]
    assert len(told) == 1


def test_the_newest_checkpoints_and_the_best_are_kept(backend: Backend) -> None:
    job_id = submit(backend, keep_checkpoints=2).id
    held = claim(backend)
    attempts.begin(backend, held)
    for step, loss in ((1, 0.6), (2, 0.3), (3, 0.4), (4, 0.5)):
        recording.record_points(backend, held, [point(step, loss, split="validation")])
        checkpoint_with_policy(backend, held, step, {"model.safetensors": b"%d" % step})
    kept = policies.list_checkpoints(backend, PROJECT, job_id)
    assert [(item.step, item.is_best, item.metrics["loss"]) for item in kept] == [
        (4, False, 0.5),
        (3, False, 0.4),
        (2, True, 0.3),
    ]
    assert [item.is_resumable for item in kept] == [True, True, False]
    garbage_collection.collect(backend)
    for item in kept:
        files = policies.find_archive(backend, PROJECT, job_id, item.id).files
        assert [backend.store.get_bytes(file.key) for file in files if file.path == "model.safetensors"] == [
            b"%d" % item.step
        ]
    prefix = keys.attempt_prefix(PROJECT, job_id, 1)
    steps = {(key.split("/")[5], key.split("/")[6]) for key in (info.key for info in backend.store.list(prefix))}
    assert steps == {("checkpoints", f"dpo-{step:08d}") for step in (3, 4)} | {
        ("policies", f"dpo-{step:08d}") for step in (2, 3, 4)
    }


@pytest.mark.parametrize(
    ("fields", "best"),
    [
        ({}, 2),
        ({"keep_best": "rewards/accuracies"}, 3),
        ({"early_stopping": {"metric": "rewards/margins"}}, 1),
        ({"early_stopping": {"metric": "rewards/margins"}, "keep_best": "loss"}, 2),
    ],
)
def test_what_the_best_is_best_at_can_be_chosen(backend: Backend, fields: dict[str, Any], best: int) -> None:
    job_id = submit(backend, **fields).id
    held = claim(backend)
    attempts.begin(backend, held)
    for step, loss, accuracy, margin in ((1, 0.6, 0.5, 0.9), (2, 0.3, 0.6, 0.1), (3, 0.4, 0.7, 0.2)):
        values = {"rewards/accuracies": accuracy, "rewards/margins": margin}
        recording.record_points(backend, held, [point(step, loss, split="validation", **values)])
        checkpoint_with_policy(backend, held, step, {"model.safetensors": b"w"})
    assert [item.step for item in policies.list_checkpoints(backend, PROJECT, job_id) if item.is_best] == [best]


def test_a_job_starts_from_the_policy_of_a_checkpoint_and_deleting_takes_all(backend: Backend) -> None:
    job_id = submit(backend).id
    held = claim(backend)
    attempts.begin(backend, held)
    checkpoint_id = checkpoint_with_policy(backend, held, 1, {"model.safetensors": b"w"})
    attempts.finish_succeeded(backend, held, publication(backend, held))
    tree = backend.database.write(
        lambda session: base_models.find_policy(session, PROJECT, f"{job_id}@{checkpoint_id}").tree
    )
    assert tree is not None
    assert tree.prefix == keys.policy_prefix(PROJECT, job_id, 1, "dpo", 1)
    jobs.delete(backend, PROJECT, job_id)
    garbage_collection.collect(backend)
    assert list(backend.store.list(keys.attempt_prefix(PROJECT, job_id, 1))) == []


def test_crashes_cost_and_the_third_without_progress_ends_the_job(backend: Backend) -> None:
    job_id = submit(backend).id
    for number in range(1, MAX_CRASHES + 1):
        held = claim(backend)
        became = attempts.release(backend, held, AttemptOutcome.CRASHED, "Exit code -11.")
        assert became is (JobStatus.FAILED if number == MAX_CRASHES else JobStatus.QUEUED)
        if number < MAX_CRASHES:
            assert attempts.claim(backend, worker="w", host="h", device="cpu") is None, "must back off"
            make_due(backend)
    error = jobs.get(backend, PROJECT, job_id).error
    assert error is not None
    assert error.code is FailureCode.CRASH_LOOP
    assert "Exit code -11." in error.detail


def test_a_job_given_up_for_a_known_cause_says_so(backend: Backend) -> None:
    job_id = submit(backend).id
    for _ in range(MAX_CRASHES):
        attempts.release(backend, claim(backend), AttemptOutcome.CRASHED, "Free some space.", FailureCode.DISK_FULL)
        make_due(backend)
    error = jobs.get(backend, PROJECT, job_id).error
    assert error is not None
    assert error.code is FailureCode.DISK_FULL
    assert "Free some space." in error.detail


def test_outages_are_free_but_not_for_ever(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requeue, "MAX_OUTAGES", 4)
    job_id = submit(backend).id
    for _ in range(3):
        attempts.release(backend, claim(backend), AttemptOutcome.OUTAGE)
        make_due(backend)
    held = claim(backend)
    checkpoint(backend, held, 1)  # progress: the count starts anew
    for _ in range(4):
        assert attempts.release(backend, held, AttemptOutcome.OUTAGE) is JobStatus.QUEUED
        make_due(backend)
        held = claim(backend)
    assert attempts.release(backend, held, AttemptOutcome.OUTAGE) is JobStatus.FAILED
    error = jobs.get(backend, PROJECT, job_id).error
    assert error is not None
    assert error.code is FailureCode.STORE_UNAVAILABLE


def test_a_checkpoint_forgives_earlier_crashes(backend: Backend) -> None:
    job_id = submit(backend).id
    for number in range(1, 3 * MAX_CRASHES):
        held = claim(backend)
        checkpoint(backend, held, number)
        assert attempts.release(backend, held, AttemptOutcome.CRASHED) is JobStatus.QUEUED
        make_due(backend)
    assert jobs.get(backend, PROJECT, job_id).attempt == 3 * MAX_CRASHES - 1


@pytest.mark.parametrize("outcome", [AttemptOutcome.DRAINED, AttemptOutcome.OUTAGE])
def test_what_the_job_is_not_to_blame_for_is_free(backend: Backend, outcome: AttemptOutcome) -> None:
    job_id = submit(backend).id
    for _ in range(2 * MAX_CRASHES):
        attempts.release(backend, claim(backend), outcome)
        make_due(backend)
    assert status(backend, job_id) == "queued"


def test_a_drained_job_can_be_taken_at_once(backend: Backend) -> None:
    job_id = submit(backend).id
    attempts.release(backend, claim(backend), AttemptOutcome.DRAINED)
    assert claim(backend).job_id == job_id


def test_a_lease_is_dead_only_when_one_watcher_saw_it_still_for_its_whole_length() -> None:
    watch = LeaseWatch(60.0)
    lease = Lease(job_id="job_1", attempt=1, heartbeat_seq=7)
    beat = Lease(job_id="job_1", attempt=1, heartbeat_seq=8)
    assert watch.observe({lease: True}, now=1000.0) == []
    assert watch.observe({lease: True}, now=1059.9) == []
    assert watch.observe({lease: False}, now=1061.0) == [], "the database must agree"
    assert watch.observe({lease: True}, now=1061.0) == [lease]
    assert watch.observe({beat: True}, now=1062.0) == []
    assert watch.observe({}, now=1063.0) == []
    assert watch.observe({beat: True}, now=1200.0) == [], "seen anew"


def test_the_sweeper_gives_a_dead_workers_job_to_the_next(backend: Backend) -> None:
    job_id = submit(backend).id
    dead = claim(backend, "dead")
    checkpoint(backend, dead, 1)
    sweeper = Sweeper(backend)
    started = time.monotonic()
    while status(backend, job_id) == "running" and time.monotonic() < started + 10:
        sweeper.sweep()
        time.sleep(0.02)
    assert status(backend, job_id) == "queued"
    assert time.monotonic() - started >= LEASE_SECONDS
    assert claim(backend).attempt == 2
    outcome = backend.database.read(lambda session: attempt_rows.find_outcome(session, job_id, 1))
    assert outcome is AttemptOutcome.LOST


def test_the_sweeper_leaves_a_worker_alone_that_beats(backend: Backend) -> None:
    job_id = submit(backend).id
    held = claim(backend)
    sweeper = Sweeper(backend)
    until = time.monotonic() + 3 * LEASE_SECONDS
    while time.monotonic() < until:
        attempts.heartbeat(backend, held)
        sweeper.sweep()
        time.sleep(LEASE_SECONDS / 10)
    assert status(backend, job_id) == "running"


def test_an_old_lease_is_not_killed_by_a_watcher_that_just_came(backend: Backend) -> None:
    """After an outage every lease looks old: all get their whole time to beat again."""
    submit(backend)
    held = claim(backend)
    backend.database.write(lambda session: session.execute(text("UPDATE jobs SET lease_expires_at = created_at")))
    Sweeper(backend).sweep()
    assert attempts.heartbeat(backend, held).desired == "run"


@pytest.mark.parametrize(("wish", "became"), [(jobs.cancel, "cancelled"), (jobs.pause, "paused")])
def test_the_sweeper_fulfils_wishes_of_dead_workers(backend: Backend, wish: Callable[..., Any], became: str) -> None:
    job_id = submit(backend).id
    held = claim(backend)
    wish(backend, PROJECT, job_id)
    lose(backend, held)
    assert status(backend, job_id) == became


def test_a_lost_lease_costs_only_without_a_new_checkpoint(backend: Backend) -> None:
    with_progress = submit(backend).id
    for step in range(1, 2 * MAX_CRASHES):
        held = claim(backend)
        checkpoint(backend, held, step)
        lose(backend, held)
    assert status(backend, with_progress) == "queued"
    attempts.finish_failed(backend, claim(backend), FailureCode.INTERNAL, "enough")

    without = submit(backend).id
    for _ in range(MAX_CRASHES):
        held = claim(backend)
        lose(backend, held)
        make_due(backend)
    assert status(backend, without) == "failed"


def test_an_expiry_that_comes_after_a_beat_does_nothing(backend: Backend) -> None:
    job_id = submit(backend).id
    held = claim(backend)
    seen = next(iter(list_leases(backend)))
    attempts.heartbeat(backend, held)
    assert expire(backend, seen) is False
    assert status(backend, job_id) == "running"


def test_the_sweeper_does_not_wait_for_a_worker_frozen_inside_a_transaction(backend: Backend) -> None:
    if not backend.database.is_postgresql:
        pytest.skip("SQLite locks no rows")
    first, second = submit(backend).id, submit(backend).id
    claim(backend, "frozen")
    claim(backend, "dead")
    leases = {lease.job_id: lease for lease in list_leases(backend)}

    def frozen(session: Session) -> list[bool]:
        job_rows.lock_job(session, first)
        return [expire(backend, leases[job_id], skip_locked=True) for job_id in (first, second)]

    start = time.monotonic()
    assert backend.database.write(frozen) == [False, True]
    assert time.monotonic() - start < 5, "the lock's own limit"
    assert (status(backend, first), status(backend, second)) == ("running", "queued")
    assert expire(backend, leases[first], skip_locked=True)


def test_leases_of_a_dead_local_worker_are_freed_at_once(backend: Backend) -> None:
    mine, other = submit(backend).id, submit(backend).id
    claim(backend, "dead")
    claim(backend, "alive")
    assert sweep.release_leases_of(backend, "dead") == 1
    assert (status(backend, mine), status(backend, other)) == ("queued", "running")


def test_only_one_sweeper_works_at_a_time_but_all_watch(backend: Backend) -> None:
    submit(backend)
    first, second = Sweeper(backend), Sweeper(backend)
    backend.queue.num_wakes = 0  # type: ignore[attr-defined]
    backend.database.write(lambda session: session.execute(text("UPDATE jobs SET wake_sent_at = NULL")))
    first.sweep()
    assert backend.queue.num_wakes == 1  # type: ignore[attr-defined]
    backend.database.write(lambda session: session.execute(text("UPDATE jobs SET wake_sent_at = NULL")))
    second.sweep()
    assert backend.queue.num_wakes == 1, "the first one holds the lock"  # type: ignore[attr-defined]
    first.sweep()
    assert backend.queue.num_wakes == 2  # type: ignore[attr-defined]


def test_wakes_are_sent_again_but_not_at_every_pass_and_not_by_the_thousand(backend: Backend) -> None:
    for _ in range(sweep.MAX_WAKES + 4):
        submit(backend)
    backend.queue.num_wakes = 0  # type: ignore[attr-defined]
    sweeper = Sweeper(backend)
    sweeper.sweep()
    assert backend.queue.num_wakes == sweep.MAX_WAKES  # type: ignore[attr-defined]
    sweeper.sweep()
    assert backend.queue.num_wakes == sweep.MAX_WAKES + 4  # type: ignore[attr-defined]
    sweeper.sweep()
    assert backend.queue.num_wakes == sweep.MAX_WAKES + 4  # type: ignore[attr-defined]


def test_stage_outputs_are_taken_over_inside_a_project(backend: Backend) -> None:
    first_id = submit(backend).id
    first = claim(backend)
    tree = attempts.StoredTree(prefix="projects/default/jobs/a/a1/stages/d/", manifest_sha256="1" * 64)
    new = checkpoints.NewStageOutput(stage=Stage.SFT, digest="d" * 64, tree=tree, num_bytes=1)
    checkpoints.commit_stage_output(backend, first, new)
    checkpoints.commit_stage_output(backend, first, new)

    submit(backend)
    second = claim(backend)
    found = checkpoints.find_stage_output(backend, second, "d" * 64)
    assert found == checkpoints.ReusableOutput(job_id=first_id, tree=tree)
    assert checkpoints.find_stage_output(backend, second, "e" * 64) is None
    submit(backend, reuse=False)
    assert checkpoints.find_stage_output(backend, claim(backend), "d" * 64) is None
    checkpoints.drop_stage_output(backend, second, "d" * 64)
    assert checkpoints.find_stage_output(backend, second, "d" * 64) is None


def test_stages_and_progress_are_shown(backend: Backend) -> None:
    job_id = submit(backend, sft={"epochs": 1}).id
    held = claim(backend)
    attempts.begin(backend, held)
    recording.stage_changed(backend, held, StageChanged(stage="sft", status="reused"), reused_from="job_0")
    recording.stage_changed(backend, held, StageChanged(stage="dpo", status="started", total_steps=10))
    recording.record_points(backend, held, [point(5, tokens_per_second=123.0)])
    job = jobs.get(backend, PROJECT, job_id)
    stages = {stage.name: stage for stage in job.stages}
    assert (stages[Stage.SFT].status, stages[Stage.SFT].reused_from) == ("reused", "job_0")
    assert stages[Stage.DPO].status == "started"
    assert (job.progress.stage, job.progress.step, job.progress.total_steps) == (Stage.DPO, 5, 10)
    assert job.progress.tokens_per_second == 123.0
    assert 0 < job.progress.fraction < 1
    attempts.finish_succeeded(backend, held, publication(backend, held))
    job = jobs.get(backend, PROJECT, job_id)
    assert job.progress.fraction == 1.0
    assert {stage.status for stage in job.stages} == {"pending", "reused", "finished"}


def test_the_time_left_of_a_limited_job_counts_all_attempts(backend: Backend) -> None:
    submit(backend, max_runtime_seconds=100)
    first = claim(backend)
    left = attempts.heartbeat(backend, first).remaining_runtime_seconds
    assert left is not None
    assert 99 < left <= 100
    backend.database.write(lambda session: session.execute(text("UPDATE jobs SET runtime_seconds = 200")))
    left = attempts.heartbeat(backend, first).remaining_runtime_seconds
    assert left is not None
    assert left <= -100


def test_a_fenced_worker_is_told_in_the_domains_words(backend: Backend) -> None:
    submit(backend)
    held = claim(backend)
    lose(backend, held)
    with pytest.raises(DomainError) as caught:
        attempts.heartbeat(backend, held)
    assert caught.value.kind == "fenced"
