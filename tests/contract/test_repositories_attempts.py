"""Claims, fences and ends of attempts, on both databases."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from backends import (
    PROJECT,
    add_dataset,
    checkpoint,
    claim,
    lose,
    make_due,
    point,
    publication,
    status,
    submit,
)
from sqlalchemy import text

from core.domain.errors import Conflict, DomainError, Fenced
from core.domain.jobs.failure_codes import FailureCode
from core.domain.jobs.job_state import AttemptOutcome, JobStatus, Stage
from core.domain.jobs.stored_files import StoredTree
from core.domain.trainer_protocol import Progress, StageChanged, TrainerEvent
from core.services.attempts import checkpoints, lifecycle, recording
from core.services.attempts.claimed_job import ClaimedJob
from core.services.backend import Backend
from core.services.curves import pages
from core.services.jobs import events, jobs, steering


@pytest.fixture(autouse=True)
def dataset(backend: Backend) -> str:
    return add_dataset(backend)


def test_eight_threads_race_for_jobs_and_each_job_is_claimed_once(backend: Backend) -> None:
    ids = [submit(backend).id for _ in range(12)]
    barrier = threading.Barrier(8)

    def work(number: int) -> list[str]:
        barrier.wait()
        taken = []
        while held := lifecycle.claim(backend, worker=f"w{number}", host="h", device="cpu"):
            taken.append(held.job_id)
        return taken

    with ThreadPoolExecutor(8) as pool:
        claimed = [job_id for taken in pool.map(work, range(8)) for job_id in taken]
    assert sorted(claimed) == ids
    assert all(jobs.get(backend, PROJECT, job_id).attempt == 1 for job_id in ids)


WRITES: list[Callable[[ClaimedJob], Any]] = [
    lifecycle.heartbeat,
    lifecycle.begin,
    lambda held: lifecycle.record_resolved_spec(held, {"seed": 666}),
    lambda held: recording.record_points(held, [point(1)]),
    lambda held: recording.record_progress(held, Progress(stage="sft", step=1, total_steps=2)),
    lambda held: recording.stage_changed(held, StageChanged(stage="sft", status="started")),
    lambda held: recording.record_events(held, [TrainerEvent(level="info", kind="x", message="stale")]),
    lambda held: recording.record_samples(held, 1, [{"prompt": "p", "reference": "r", "policy": "y"}]),
    lambda held: checkpoint(held.backend, held, 1),
    lambda held: checkpoints.mark_checkpoint_corrupt(held, "ckpt_1", "bad"),
    lambda held: checkpoints.commit_stage_output(
        held,
        checkpoints.NewStageOutput(
            stage=Stage.SFT,
            digest="d" * 64,
            tree=StoredTree(prefix="projects/default/jobs/x/a1/stages/d/", manifest_sha256="1" * 64),
            num_bytes=1,
        ),
    ),
    lambda held: checkpoints.drop_stage_output(held, "d" * 64),
    lambda held: lifecycle.finish_succeeded(held, publication(held.backend, held)),
    lambda held: lifecycle.finish_failed(held, FailureCode.INTERNAL, "stale"),
    lifecycle.finish_cancelled,
    lifecycle.finish_paused,
    lambda held: lifecycle.release(held, AttemptOutcome.DRAINED),
    lambda held: lifecycle.release(held, AttemptOutcome.CRASHED),
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
            write(zombie)
    assert snapshot(backend, job_id) == before

    successor = claim(backend, "successor")
    assert (successor.job_id, successor.attempt) == (job_id, 2)
    before = snapshot(backend, job_id)
    for write in WRITES:
        with pytest.raises(Fenced):
            write(zombie)
    assert snapshot(backend, job_id) == before
    lifecycle.finish_succeeded(successor, publication(backend, successor))
    assert status(backend, job_id) == "succeeded"


def test_a_repeated_claim_after_a_lost_answer_finds_its_job(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = submit(backend).id, submit(backend).id
    write = backend.database.write

    def twice(work: Callable[..., Any]) -> Any:
        write(work)
        return write(work)

    monkeypatch.setattr(backend.database, "write", twice)
    held = lifecycle.claim(backend, worker="w", host="h", device="cpu")
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
    lifecycle.begin(held)
    recording.stage_changed(held, StageChanged(stage="dpo", status="started", total_steps=9))
    recording.record_points(held, [point(1), point(2)])
    recording.record_events(held, [TrainerEvent(level="info", kind="a", message="once")] * 2)
    recording.record_samples(held, 2, [{"prompt": "p", "reference": "r", "policy": "y"}])
    checkpoint(backend, held, 2)
    kinds = [event.kind for event in events.list_events(backend, PROJECT, job_id)]
    assert kinds == ["submitted", "started", "stage", "a", "a", "checkpoint"]
    assert len(events.list_samples(backend, PROJECT, job_id)) == 1
    assert [found.seq for found in pages.all_points(backend, PROJECT, job_id)] == [1, 2]


@pytest.mark.parametrize(
    "finish",
    [
        lambda held: lifecycle.finish_succeeded(held, publication(held.backend, held)),
        lambda held: lifecycle.finish_failed(held, FailureCode.GPU_OOM, "Take less."),
        lifecycle.finish_paused,
        lambda held: lifecycle.release(held, AttemptOutcome.CRASHED, "It died."),
    ],
)
def test_a_finish_may_be_repeated(backend: Backend, finish: Callable[[ClaimedJob], Any]) -> None:
    job_id = submit(backend).id
    held = claim(backend)
    finish(held)
    before = snapshot(backend, job_id)
    finish(held)
    assert snapshot(backend, job_id) == before


def test_cancel_races_with_finish_and_one_of_them_wins(backend: Backend) -> None:
    for _ in range(8):
        job_id = submit(backend).id
        held = claim(backend)
        published = publication(backend, held)
        barrier = threading.Barrier(2)

        def finish(held: ClaimedJob = held, published: Any = published, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            lifecycle.finish_succeeded(held, published)

        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(finish)
            barrier.wait()
            try:
                answer = steering.cancel(backend, PROJECT, job_id).job
                assert (answer.status, answer.desired) == (JobStatus.RUNNING, "cancel")
            except steering.JobNotCancellable:
                pass
            done.result()
        assert status(backend, job_id) == "succeeded"
        ends = [event for event in events.list_events(backend, PROJECT, job_id) if event.kind == "succeeded"]
        assert len(ends) == 1


def test_nobody_cancels_a_job_that_nobody_wanted_cancelled(backend: Backend) -> None:
    submit(backend)
    with pytest.raises(Conflict):
        lifecycle.finish_cancelled(claim(backend))


def test_stages_and_progress_are_shown(backend: Backend) -> None:
    job_id = submit(backend, sft={"epochs": 1}).id
    held = claim(backend)
    lifecycle.begin(held)
    recording.stage_changed(held, StageChanged(stage="sft", status="reused"), reused_from="job_0")
    recording.stage_changed(held, StageChanged(stage="dpo", status="started", total_steps=10))
    recording.record_points(held, [point(5, tokens_per_second=123.0)])
    job = jobs.get(backend, PROJECT, job_id)
    stages = {stage.name: stage for stage in job.stages}
    assert (stages[Stage.SFT].status, stages[Stage.SFT].reused_from) == ("reused", "job_0")
    assert stages[Stage.DPO].status == "started"
    assert (job.progress.stage, job.progress.step, job.progress.total_steps) == (Stage.DPO, 5, 10)
    assert job.progress.tokens_per_second == 123.0
    assert 0 < job.progress.fraction < 1
    lifecycle.finish_succeeded(held, publication(backend, held))
    job = jobs.get(backend, PROJECT, job_id)
    assert job.progress.fraction == 1.0
    assert {stage.status for stage in job.stages} == {"pending", "reused", "finished"}


def test_the_time_left_of_a_limited_job_counts_all_attempts(backend: Backend) -> None:
    submit(backend, max_runtime_seconds=100)
    first = claim(backend)
    left = lifecycle.heartbeat(first).remaining_runtime_seconds
    assert left is not None
    assert 99 < left <= 100
    backend.database.write(lambda session: session.execute(text("UPDATE jobs SET runtime_seconds = 200")))
    left = lifecycle.heartbeat(first).remaining_runtime_seconds
    assert left is not None
    assert left <= -100


def test_a_fenced_worker_is_told_in_the_domains_words(backend: Backend) -> None:
    submit(backend)
    held = claim(backend)
    lose(backend, held)
    with pytest.raises(DomainError) as caught:
        lifecycle.heartbeat(held)
    assert caught.value.kind == "fenced"
