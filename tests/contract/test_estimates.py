"""Estimates over a real database: measurements, workers that are alive, stages taken over, the place in the queue."""

from dataclasses import replace
from typing import Any

import pytest
from backends import PROJECT, add_dataset, claim, publication, submit
from sqlalchemy import text

from core.database.columns import database_now
from core.database.repositories import measurements
from core.database.tables.objects import StageOutput
from core.domain.errors import Unavailable
from core.domain.estimates.speeds import Interval, Measurement, ModelShape
from core.domain.estimates.work import JobSizes, SplitSizes, plan_work
from core.domain.jobs.job_spec import JobRequest, JobSpec, resolve_staged
from core.domain.jobs.job_state import Stage
from core.services.attempts import lifecycle
from core.services.backend import Backend
from core.services.estimates import estimates, filling, queue_times, workers
from core.services.estimates.estimates import Estimate
from core.services.estimates.queue_times import QueuePlace
from core.services.estimates.workers import WorkerFacts
from core.services.jobs import jobs
from core.services.views import TokenStatisticsView

CLASS = "CPU, 2 threads"
NUM_ROWS = 40
ROWS = [(10, 20, 30)] * NUM_ROWS
STATISTICS = TokenStatisticsView(
    base_model="tiny", max_length=64, is_exact=True, num_rows=NUM_ROWS, num_over_max_length=0, context_length=64,
    num_over_context=0, num_equal_once_rendered=0, num_unencodable=0, problems=[], share_over_max_length=0.0,
    lengths={}, kept_rows=ROWS, kept_texts=[(row, 1, 2) for row in range(NUM_ROWS)], num_good=NUM_ROWS,
)  # fmt: skip
STEP_SECONDS = 10.0


@pytest.fixture(autouse=True)
def dataset(backend: Backend) -> None:
    add_dataset(backend, num_rows=NUM_ROWS)


def come_alive(backend: Backend, name: str = "worker-1", device_class: str = CLASS) -> None:
    workers.note(backend, WorkerFacts(name=name, host="h", device_class=device_class, trains=True, memory_bytes=2**30))


def staged(spec: dict[str, Any]) -> JobSpec:
    known = JobSpec.model_validate(spec)
    return resolve_staged(known, num_sft_rows=38, num_train_pairs=38, device="cpu", fast_precision="fp32")


def finish(backend: Backend, **fields: Any) -> str:
    """Run a job to its end as a worker does whose every pass takes `STEP_SECONDS`."""
    job = submit(backend, **fields)
    held = claim(backend)
    assert held.job_id == job.id
    lifecycle.begin(held)
    spec = staged(held.spec)
    lifecycle.record_resolved_spec(held, spec.model_dump(mode="json"))
    work = plan_work(spec, JobSizes(train=SplitSizes.measure(ROWS)))
    times = Measurement(
        shape=ModelShape(body_parameters=10, num_layers=1, hidden_size=2, vocabulary=4),
        passes=work.passes,
        laps={item.lap: STEP_SECONDS for item in work.passes},
        num_laps={item.lap: 1 for item in work.passes},
        begin_tokens=0,
        answer_tokens=0,
        start_seconds=1.0,
        publish_seconds=1.0,
    )
    costs = {
        "optimizer_bytes": 3000, "token_bytes": 1.0, "layer_token_bytes": 1.0, "score_bytes": 0,
        "scored_token_bytes": 0, "most_keys": 512,
    }  # fmt: skip
    memory = {
        "peak_bytes": 2**20,
        "lap_peaks": {"dpo:step": 2**20},
        "footprints": {"dpo": {"costs": costs, "rows": {"scored_share": 1.0, "longest": 60}}},
    }
    measured = {
        "num_parameters": spec.num_parameters, "times": times.to_values(), "memory": memory,
        "tokens": work.stage_tokens(), "steps": work.steps, "device_class": CLASS,
    }  # fmt: skip
    lifecycle.finish_succeeded(held, replace(publication(backend, held), measured=measured))
    return job.id


def estimate(backend: Backend, statistics: TokenStatisticsView = STATISTICS, **fields: Any) -> Estimate:
    request = JobRequest.model_validate({"base_model": "tiny", "dataset_id": "ds_1"} | fields)
    previewed = jobs.preview(backend, PROJECT, request)
    return estimates.of_spec(backend, PROJECT, previewed.spec, previewed.base_model_name, statistics)


def test_without_a_measured_job_there_is_a_reason_instead_of_a_time(backend: Backend) -> None:
    found = estimate(backend)
    assert (found.seconds, found.peak_memory_bytes, found.reason) == (None, None, estimates.NO_WORKER)
    assert (found.num_train_rows, found.num_validation_rows) == (38, 2)
    assert found.steps == {"sft": 10, "dpo": 10}
    come_alive(backend)
    found = estimate(backend)
    assert (found.seconds, found.reason) == (None, estimates.NOT_MEASURED)
    assert found.workers[0].memory_bytes == 2**30


def test_answers_of_ranked_lists_are_counted_once_for_each_prompt(backend: Backend) -> None:
    def tokens(texts: list[tuple[int, int, int]]) -> tuple[int, bool]:
        found = estimate(backend, replace(STATISTICS, kept_texts=texts), validation_fraction=0)
        return found.tokens["dpo"], found.is_exact

    pairs = [(first, second) for first in (1, 2) for second in (3, 4)]  # four answers of 20 or 30 tokens, four pairs
    ranked = [(row // 4, *pairs[row % 4]) for row in range(NUM_ROWS)]
    assert tokens(STATISTICS.kept_texts) == (NUM_ROWS * (10 + 20 + 30), True)
    assert tokens(ranked) == (NUM_ROWS // 4 * (10 + 2 * 20 + 2 * 30), False)


def test_an_equal_job_is_expected_to_take_what_the_measured_one_took(backend: Backend) -> None:
    come_alive(backend)
    job_id = finish(backend, validation_fraction=0)
    found = estimate(backend, validation_fraction=0, reuse=False)
    assert found.seconds is not None
    assert found.seconds.low < 4 * STEP_SECONDS + 2 < found.seconds.high <= 2 * found.seconds.low
    assert found.peak_memory_bytes == pytest.approx(2**20, rel=0.01)
    assert found.workers[0].fits is True
    assert found.disk is None  # the toy wrote no checkpoint
    shown = jobs.get(backend, PROJECT, job_id)
    assert shown.actual is not None
    assert shown.actual["peak_memory_bytes"] == 2**20
    assert estimate(backend, lora={"rank": 2}).reason == estimates.NOT_MEASURED
    jobs.delete(backend, PROJECT, job_id)
    assert estimate(backend, validation_fraction=0, reuse=False).seconds == found.seconds


def test_a_silent_worker_and_another_class_do_not_count(backend: Backend) -> None:
    come_alive(backend)
    finish(backend)
    assert estimate(backend).seconds is not None
    backend.database.write(
        lambda session: session.execute(text("UPDATE workers SET seen_at = '2020-01-01 00:00:00.000'"))
    )
    come_alive(backend, "worker-2", "CPU, 64 threads")
    found = estimate(backend)
    assert [(item.device_class, item.seconds) for item in found.workers] == [("CPU, 64 threads", None)]
    workers.leave(backend, "worker-2")
    assert estimate(backend).reason == estimates.NO_WORKER
    workers.forget_silent(backend)
    assert backend.database.read(lambda session: session.scalar(text("SELECT count(*) FROM workers"))) == 0


def test_stages_of_an_equal_job_are_expected_to_be_taken_over(backend: Backend) -> None:
    come_alive(backend)
    job_id = finish(backend)
    assert estimate(backend, beta=0.5).reused_stages == {}  # it left no output
    for stage in (Stage.SFT, Stage.REFERENCE):
        output = StageOutput(
            project_id=PROJECT, digest=stage.value.ljust(64, "0"), stage=stage, job_id=job_id, attempt=1, prefix="p/",
            manifest_sha256="0" * 64, num_bytes=1, created_at=database_now(),
        )  # fmt: skip
        backend.database.write(lambda session, output=output: session.add(output))
    found, alone = estimate(backend, beta=0.5), estimate(backend, beta=0.5, reuse=False)
    assert found.reused_stages == {"sft": job_id, "reference": job_id}
    assert found.seconds is not None
    assert alone.seconds is not None
    assert found.seconds.low < 0.75 * alone.seconds.low
    assert estimate(backend, seed=1).reused_stages == {}
    assert estimate(backend, dpo={"batch_size": 2}).reused_stages == {"sft": job_id}


def test_only_the_newest_measurements_of_a_kind_are_kept(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurements, "MAX_KEPT", 2)
    made = [finish(backend) for _ in range(3)]
    kept = backend.database.read(lambda session: measurements.find_measurements(session, made))
    assert set(kept) == set(made[1:])


def place(backend: Backend, priority: int = 0) -> QueuePlace:
    return backend.database.read(lambda session: queue_times.place_of_next(session, PROJECT, priority))


def expect(backend: Backend, job_id: str, low: float, high: float) -> None:
    values = {"seconds": {"low": low, "high": high}}
    backend.database.write(lambda session: measurements.set_estimate(session, job_id, values))


def test_the_start_follows_from_the_estimates_of_the_jobs_before(backend: Backend) -> None:
    assert place(backend).reason == queue_times.NOBODY
    come_alive(backend)
    assert (place(backend).position, place(backend).starts_in_seconds) == (1, Interval(low=0, high=0))
    running = submit(backend).id
    claim(backend)
    waiting = submit(backend).id
    expect(backend, running, 100, 150)
    assert "1 of the jobs before it" in (place(backend).reason or "")
    expect(backend, waiting, 50, 80)
    found = place(backend)
    assert found.position == 2
    assert found.starts_in_seconds is not None
    assert 145 < found.starts_in_seconds.low <= 150
    assert 225 < found.starts_in_seconds.high <= 230
    sooner = place(backend, priority=5).starts_in_seconds
    assert sooner is not None
    assert sooner.high <= 150
    come_alive(backend, "worker-2")
    assert place(backend).starts_in_seconds == Interval(low=50, high=80)


def test_an_estimate_is_stored_once_and_not_after_the_end(backend: Backend) -> None:
    job = submit(backend).id
    expect(backend, job, 1, 2)
    expect(backend, job, 3, 4)
    assert (jobs.get(backend, PROJECT, job).estimate or {})["seconds"] == {"low": 1, "high": 2}
    other = finish_quickly(backend)
    expect(backend, other, 1, 2)
    assert jobs.get(backend, PROJECT, other).estimate is None


def test_a_passing_fault_or_a_broken_job_keeps_no_other_from_its_estimate(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filling, "MAX_JOBS", 1)
    old, broken = submit(backend).id, submit(backend).id
    backend.database.write(
        lambda session: session.execute(text("UPDATE jobs SET spec = '{}' WHERE id = :id"), {"id": broken})
    )
    background = filling.Filling(backend)
    with pytest.raises(ValueError, match="validation errors"):
        background.step()
    with monkeypatch.context() as outage:
        outage.setattr(estimates, "of_job", raise_unavailable)
        with pytest.raises(Unavailable):
            background.step()
    background.step()
    assert jobs.get(backend, PROJECT, old).estimate is not None


def raise_unavailable(*_: Any) -> None:
    raise Unavailable("The store does not answer.")


def finish_quickly(backend: Backend) -> str:
    job = submit(backend, priority=1)
    held = claim(backend)
    lifecycle.begin(held)
    lifecycle.finish_succeeded(held, publication(backend, held))
    return job.id
