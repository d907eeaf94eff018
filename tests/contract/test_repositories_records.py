"""Curves, datasets, idempotency keys, garbage and base models, on both databases."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from backends import (
    BASE_MODEL,
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

from core.datasets.result import DatasetRejected
from core.domain.dataset_rows import DatasetKind
from core.domain.errors import InvalidRequest, NotFound, Unavailable
from core.domain.jobs.failure_codes import FailureCode
from core.services.access import idempotency
from core.services.access.idempotency import IdempotentRequest, KeptAnswer, Reservation
from core.services.attempts import lifecycle, recording
from core.services.backend import Backend
from core.services.base_models import starting_points
from core.services.curves import pages
from core.services.curves.pages import MetricsQuery
from core.services.datasets import contents, datasets, intake, processing
from core.services.datasets.row_pages import RowsQuery
from core.services.jobs import artifacts, checkpoint_policies, jobs, repeats, steering, stored_files
from core.services.operations import garbage_collection, health
from core.storage import keys
from core.storage.object_store import ObjectInfo, ObjectMissing, StoreUnavailable

GOOD_ROWS = [{"prompt": f"Question {i}?", "chosen": f"Yes, {i}.", "rejected": f"No {i}!"} for i in range(5)]


def upload(folder: Path, rows: list[dict[str, object]], **fields: object) -> intake.Upload:
    path = folder / "upload.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return intake.Upload(path=path, filename="pairs.jsonl", **fields)  # type: ignore[arg-type]


def objects(backend: Backend) -> list[str]:
    return [info.key for info in backend.store.list(keys.ROOT)]


def test_pages_of_a_curve_join_without_gap(backend: Backend) -> None:
    add_dataset(backend)
    job_id = submit(backend).id
    held = claim(backend)
    recording.record_points(held, [point(step, stage="sft") for step in range(1, 6)])
    recording.record_points(held, [point(1, split="validation", other=2.0), point(1)])

    first = pages.page(backend, PROJECT, job_id, MetricsQuery(limit=4))
    second = pages.page(backend, PROJECT, job_id, MetricsQuery(after=first.last_seq, limit=4))
    assert (first.last_seq, first.has_more, second.last_seq, second.has_more) == (4, True, 7, False)
    assert [found.seq for found in first.points + second.points] == [1, 2, 3, 4, 5, 6, 7]

    chosen = pages.page(backend, PROJECT, job_id, MetricsQuery(split="validation", names=("other", "absent")))
    assert [found.values for found in chosen.points] == [{"other": 2.0}]
    assert chosen.last_seq == 7, "what was filtered out is not asked for again"
    thinned = pages.page(backend, PROJECT, job_id, MetricsQuery(max_points=3))
    assert len(thinned.points) == 3


def test_a_data_set_is_taken_in_whole(backend: Backend, tmp_path: Path) -> None:
    file = upload(tmp_path, GOOD_ROWS, name="mine", metadata={"k": "v"})
    made = intake.create(backend, PROJECT, file)
    assert made.id.startswith("ds_")
    assert (made.status, made.kind, made.format, made.num_rows, made.num_accepted) == (
        "ready",
        "preference",
        made.format,
        5,
        5,
    )
    assert (made.name, made.metadata) == ("mine", {"k": "v"})
    assert datasets.get(backend, PROJECT, made.id) == made
    content = contents.original(backend, PROJECT, made.id)
    assert b"".join(content.chunks) == file.path.read_bytes()
    assert (content.filename, content.num_bytes) == ("pairs.jsonl", file.path.stat().st_size)

    page = datasets.list_rows(backend, PROJECT, made.id, RowsQuery(limit=2))
    rest = datasets.list_rows(backend, PROJECT, made.id, RowsQuery(limit=10, cursor=page.next_cursor))
    assert [row["line"] for row in page.data + rest.data] == [1, 2, 3, 4, 5]
    assert rest.next_cursor is None
    assert not list(backend.settings.scratch_dir.iterdir())
    with pytest.raises(datasets.DatasetNotFound):
        datasets.get(backend, "another", made.id)


def test_a_forged_cursor_is_a_fault_of_the_request(backend: Backend, tmp_path: Path) -> None:
    made = intake.create(backend, PROJECT, upload(tmp_path, GOOD_ROWS))
    for cursor in ("Mw", "", "a b", "x", "OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5"):
        if cursor:
            with pytest.raises(InvalidRequest):
                datasets.list_rows(backend, PROJECT, made.id, RowsQuery(cursor=cursor))


def test_a_refused_data_set_leaves_nothing_behind(backend: Backend, tmp_path: Path) -> None:
    with pytest.raises(DatasetRejected) as caught:
        intake.create(backend, PROJECT, upload(tmp_path, [*GOOD_ROWS, {"prompt": "only"}]))
    assert caught.value.code == "dataset-rejected"
    assert any(issue["line"] == 6 for issue in caught.value.context["report"]["issues"])
    assert datasets.list_page(backend, PROJECT).data == []
    assert objects(backend) == []


def test_every_issue_of_a_data_set_can_be_read(backend: Backend, tmp_path: Path) -> None:
    file = upload(tmp_path, [*GOOD_ROWS, {"prompt": "only"}], on_error="skip")
    made = intake.create(backend, PROJECT, file)
    assert (made.num_accepted, made.num_rejected) == (5, 1)
    page = datasets.list_issues(backend, PROJECT, made.id)
    assert [issue["line"] for issue in page.data if issue["severity"] == "error"] == [6]


def test_a_repeated_create_answers_the_data_set_that_is_there(backend: Backend, tmp_path: Path) -> None:
    file = upload(tmp_path, GOOD_ROWS)
    made = intake.create(backend, PROJECT, file, dataset_id="ds_fixed")
    assert intake.create(backend, PROJECT, file, dataset_id="ds_fixed") == made
    assert intake.create_later(backend, PROJECT, file, dataset_id="ds_fixed") == made


@pytest.mark.parametrize(("rows", "became"), [(GOOD_ROWS, "ready"), ([{"prompt": "only"}], "rejected")])
def test_a_data_set_may_be_checked_later(
    backend: Backend, tmp_path: Path, rows: list[dict[str, object]], became: str
) -> None:
    made = intake.create_later(backend, PROJECT, upload(tmp_path, rows))
    assert made.status == "processing"
    with pytest.raises(datasets.DatasetNotReady):
        datasets.list_rows(backend, PROJECT, made.id)
    task = processing.take_next(backend, "checker")
    assert task is not None
    assert processing.take_next(backend, "other") is None, "it is leased"
    processing.process(backend, task)

    done = datasets.get(backend, PROJECT, made.id)
    assert done.status == became
    garbage_collection.collect(backend)
    if became == "ready":
        assert len(datasets.list_rows(backend, PROJECT, made.id).data) == 5
        assert len(objects(backend)) == 3
    else:
        assert done.report["counts"]
        assert datasets.list_issues(backend, PROJECT, made.id).data
        assert objects(backend) == []


def test_a_check_whose_process_died_is_taken_over_and_at_last_given_up(backend: Backend, tmp_path: Path) -> None:
    made = intake.create_later(backend, PROJECT, upload(tmp_path, GOOD_ROWS))
    first = processing.take_next(backend, "dead")
    assert first is not None
    for _ in range(processing.MAX_TRIES):
        backend.database.write(
            lambda session: session.execute(text("UPDATE datasets SET lease_expires_at = created_at"))
        )
        task = processing.take_next(backend, "next")
        assert task is not None
    processing.process(backend, first)
    assert datasets.get(backend, PROJECT, made.id).status == "processing", "the dead one came too late"
    processing.process(backend, task)
    assert datasets.get(backend, PROJECT, made.id).status == "rejected"


def test_the_processor_finds_waiting_data_sets(backend: Backend, tmp_path: Path) -> None:
    processor = processing.DatasetProcessor(backend)
    processor.start()
    try:
        made = intake.create_later(backend, PROJECT, upload(tmp_path, GOOD_ROWS))
        processor.notify()
        waiting = threading.Event()
        for _ in range(200):
            if datasets.get(backend, PROJECT, made.id).status == "ready":
                break
            waiting.wait(0.05)
        assert datasets.get(backend, PROJECT, made.id).status == "ready"
    finally:
        processor.stop()


def test_a_deleted_data_set_frees_its_objects(backend: Backend, tmp_path: Path) -> None:
    made = intake.create(backend, PROJECT, upload(tmp_path, GOOD_ROWS))
    assert len(objects(backend)) == 3
    datasets.delete(backend, PROJECT, made.id)
    with pytest.raises(datasets.DatasetNotFound):
        datasets.delete(backend, PROJECT, made.id)
    assert garbage_collection.collect(backend) == 1
    assert objects(backend) == []
    assert garbage_collection.collect(backend) == 0


def test_pruned_and_deleted_objects_go_and_named_ones_stay(backend: Backend) -> None:
    add_dataset(backend)
    job_id = submit(backend).id
    held = claim(backend)
    for step in (1, 2, 3):
        checkpoint(backend, held, step)
    garbage_collection.collect(backend)
    assert [key for key in objects(backend) if "dpo-00000001" in key] == []
    assert len(objects(backend)) == 2

    lifecycle.finish_failed(held, FailureCode.INTERNAL, "x")
    retried = repeats.retry(backend, PROJECT, job_id)
    jobs.delete(backend, PROJECT, job_id)
    garbage_collection.collect(backend)
    kept = [key.split("/")[-2] for key in objects(backend)]
    assert kept == ["dpo-00000002", "dpo-00000003"], "the retried job starts there, or one before if that is damaged"
    steering.cancel(backend, PROJECT, retried.id)
    jobs.delete(backend, PROJECT, retried.id)
    garbage_collection.collect(backend)
    assert objects(backend) == []


class AgedStore:
    """The objects of a store, all a day older."""

    def __init__(self, backend: Backend) -> None:
        self._store = backend.store

    def list(self, prefix: str) -> list[ObjectInfo]:
        return iter(  # type: ignore[return-value]
            [
                ObjectInfo(key=info.key, num_bytes=info.num_bytes, modified_at=info.modified_at - timedelta(days=2))
                for info in self._store.list(prefix)
            ]
        )

    def delete(self, key: str) -> None:
        self._store.delete(key)

    def remove_leftovers(self, older_than_seconds: float) -> None:
        self._store.remove_leftovers(older_than_seconds)


def test_orphans_go_after_a_day_and_nothing_else(backend: Backend, tmp_path: Path) -> None:
    made = intake.create(backend, PROJECT, upload(tmp_path, GOOD_ROWS))
    job_id = submit(backend, dataset_id=made.id).id
    held = claim(backend)
    checkpoint(backend, held, 1)
    kept = set(objects(backend))
    under_way = keys.checkpoint_prefix(PROJECT, job_id, held.attempt_name, "dpo", 9) + "model"
    zombies = keys.checkpoint_prefix(PROJECT, job_id, 7, "dpo", 9) + "model"
    refused = keys.dataset_original(PROJECT, "ds_gone")
    for key in (under_way, zombies, refused, "projects/default/unknown"):
        backend.store.put_bytes(key, b"x")

    fresh = garbage_collection.OrphanScan()
    assert fresh.step(backend) == 0, "too young"
    aged = Backend(
        settings=backend.settings,
        database=backend.database,
        store=AgedStore(backend),  # type: ignore[arg-type]
        queue=backend.queue,
    )
    scan = garbage_collection.OrphanScan(second_look_seconds=0)
    assert scan.step(aged) == 2
    assert scan.step(aged) == 0, "it pauses between scans"
    assert set(objects(backend)) == kept | {under_way, "projects/default/unknown"}


class UnlistingStore(AgedStore):
    """A store without ListMultipartUploads, or whose policy refuses it."""

    def remove_leftovers(self, older_than_seconds: float) -> None:
        raise StoreUnavailable("501 NotImplemented")


def test_a_store_that_lists_no_unfinished_uploads_is_scanned_all_the_same(backend: Backend) -> None:
    lost = keys.dataset_original(PROJECT, "ds_gone")
    backend.store.put_bytes(lost, b"x")
    store = UnlistingStore(backend)
    refusing = Backend(
        settings=backend.settings,
        database=backend.database,
        store=store,  # type: ignore[arg-type]
        queue=backend.queue,
    )
    assert garbage_collection.OrphanScan(second_look_seconds=0).step(refusing) == 1
    assert objects(backend) == []


def test_clocks_that_differ_by_days_cost_no_object_of_a_row_to_come(
    backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(garbage_collection, "PAUSE_STEPS", -1)
    now = [1000.0]
    monkeypatch.setattr(garbage_collection, "time", SimpleNamespace(monotonic=lambda: now[0]))
    behind = Backend(
        settings=backend.settings,
        database=backend.database,
        store=AgedStore(backend),  # type: ignore[arg-type]
        queue=backend.queue,
    )
    lost = keys.dataset_original(PROJECT, "ds_gone")
    backend.store.put_bytes(lost, b"x")
    scan = garbage_collection.OrphanScan()
    being_written = keys.dataset_original(PROJECT, "ds_new")
    backend.store.put_bytes(being_written, b"x")
    assert scan.step(behind) == 0, "the first look deletes nothing"
    add_dataset(backend, "ds_new")
    now[0] += garbage_collection.SECOND_LOOK_SECONDS - 1
    assert scan.step(behind) == 0, "too soon after the first look"
    now[0] += 1
    assert scan.step(behind) == 1
    assert set(objects(backend)) == {being_written}


def request(body: str = "a", key: str = "key") -> IdempotentRequest:
    return IdempotentRequest(key=key, route="POST /jobs", body_sha256=body.ljust(64, "0"))


def test_a_key_is_answered_once(backend: Backend) -> None:
    held = idempotency.begin(backend, PROJECT, request())
    assert isinstance(held, Reservation)
    with pytest.raises(idempotency.IdempotencyKeyInUse):
        idempotency.begin(backend, PROJECT, request())
    with pytest.raises(idempotency.IdempotencyKeyReused):
        idempotency.begin(backend, PROJECT, request("b"))
    answer = KeptAnswer(status=201, headers={"Location": "/jobs/1"}, body='{"id":1}')
    idempotency.finish(backend, held, answer)
    assert idempotency.begin(backend, PROJECT, request()) == answer
    with pytest.raises(idempotency.IdempotencyKeyReused):
        idempotency.begin(backend, PROJECT, request("b"))
    assert isinstance(idempotency.begin(backend, PROJECT, request(key="other")), Reservation)


def test_of_many_at_once_one_gets_the_key(backend: Backend) -> None:
    barrier = threading.Barrier(8)

    def work(_: int) -> bool:
        barrier.wait()
        try:
            return isinstance(idempotency.begin(backend, PROJECT, request()), Reservation)
        except idempotency.IdempotencyKeyInUse:
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(work, range(8))) == 1


def test_a_request_that_died_is_tried_again_under_the_same_id(backend: Backend) -> None:
    add_dataset(backend)
    died = idempotency.begin(backend, PROJECT, request(), lease_seconds=-1)
    assert isinstance(died, Reservation)
    first = submit_as(backend, died)

    again = idempotency.begin(backend, PROJECT, request())
    assert isinstance(again, Reservation)
    assert submit_as(backend, again) == first
    assert [job.id for job in jobs.list_page(backend, PROJECT).data] == [first]
    idempotency.finish(backend, died, KeptAnswer(status=500, headers={}, body="late"))
    idempotency.finish(backend, again, KeptAnswer(status=201, headers={}, body="right"))
    answer = idempotency.begin(backend, PROJECT, request())
    assert isinstance(answer, KeptAnswer)
    assert answer.body == "right"


def submit_as(backend: Backend, held: Reservation) -> str:
    body = jobs.JobRequest(base_model=BASE_MODEL, dataset_id="ds_1")
    return jobs.submit(backend, PROJECT, body, job_id=held.resource_id("job")).id


def test_an_abandoned_key_keeps_its_id(backend: Backend) -> None:
    first = idempotency.begin(backend, PROJECT, request())
    assert isinstance(first, Reservation)
    idempotency.abandon(backend, first)
    second = idempotency.begin(backend, PROJECT, request())
    assert isinstance(second, Reservation)
    assert second.resource_id("job") == first.resource_id("job")
    assert second.token != first.token


def test_a_key_is_forgotten_after_a_day(backend: Backend) -> None:
    held = idempotency.begin(backend, PROJECT, request())
    assert isinstance(held, Reservation)
    idempotency.finish(backend, held, KeptAnswer(status=201, headers={}, body="old"))
    old = datetime.now(UTC) - timedelta(hours=25)
    stamp = old.strftime("%Y-%m-%d %H:%M:%S.000") + ("+00" if backend.database.is_postgresql else "")
    backend.database.write(lambda session: session.execute(text(f"UPDATE idempotency_keys SET created_at = '{stamp}'")))
    renewed = idempotency.begin(backend, PROJECT, request("b"))
    assert isinstance(renewed, Reservation)
    backend.database.write(lambda session: session.execute(text(f"UPDATE idempotency_keys SET created_at = '{stamp}'")))
    idempotency.forget_old(backend)
    left = backend.database.read(lambda session: session.scalar(text("SELECT count(*) FROM idempotency_keys")))
    assert left == 0


def test_base_models_then_policies_the_newest_first(backend: Backend) -> None:
    add_dataset(backend)
    tuned = []
    for _ in range(2):
        tuned.append(submit(backend).id)
        held = claim(backend)
        lifecycle.finish_succeeded(held, publication(backend, held))
    seen, cursor = [], None
    while True:
        page = starting_points.list_models(backend, PROJECT, limit=1, cursor=cursor)
        seen += page.data
        cursor = page.next_cursor
        if cursor is None:
            break
    assert [model.name for model in seen] == [BASE_MODEL, *tuned[::-1]]
    assert [(model.kind, model.job_id) for model in seen] == [("base", None), *(("tuned", job) for job in tuned[::-1])]
    assert {(model.architecture, model.num_parameters, model.context_length) for model in seen} == {
        ("TinyForCausalLM", 12, 64)
    }


def test_a_checkpoint_of_a_finished_job_can_be_a_base_model(backend: Backend) -> None:
    add_dataset(backend)
    source = submit(backend).id
    held = claim(backend)
    checkpoint_id = checkpoint_with_policy(backend, held, 1, {"model.safetensors": b"w"})
    with pytest.raises(InvalidRequest, match="running"):
        submit(backend, base_model=f"{source}@{checkpoint_id}")
    lifecycle.finish_failed(held, FailureCode.INTERNAL, "x")
    assert submit(backend, base_model=f"{source}@{checkpoint_id}").status.value == "queued"
    with pytest.raises(InvalidRequest, match="no policy of a checkpoint"):
        submit(backend, base_model=f"{source}@ckpt_none")
    with pytest.raises(InvalidRequest, match="published no policy"):
        submit(backend, base_model=source)


def test_artifacts_are_listed_and_read(backend: Backend) -> None:
    add_dataset(backend)
    job_id = submit(backend).id
    held = claim(backend)
    with pytest.raises(artifacts.ArtifactNotFound):
        artifacts.get(backend, PROJECT, job_id)
    lifecycle.finish_succeeded(held, publication(backend, held, ["b.json", "adapter/a.json"]))
    found = artifacts.get(backend, PROJECT, job_id)
    assert [file.path for file in found.files] == ["adapter/a.json", "b.json"]
    file = artifacts.find_file(backend, PROJECT, job_id, "b.json")
    assert b"".join(stored_files.read_file(backend, job_id, file, 2, 5)) == b"igh"
    with pytest.raises(artifacts.ArtifactFileNotFound):
        artifacts.find_file(backend, PROJECT, job_id, "../b.json")


def test_data_sets_of_another_kind_are_refused_by_name(backend: Backend) -> None:
    add_dataset(backend)
    add_dataset(backend, "ds_2", DatasetKind.DEMONSTRATION)
    with pytest.raises(InvalidRequest, match="needs one of kind preference"):
        submit(backend, dataset_id="ds_2")
    assert submit(backend, sft={"dataset_id": "ds_2"}).spec["sft"]["dataset_id"] == "ds_2"


def test_readiness_names_what_is_down(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    def look() -> health.Readiness:
        return health.summarise({name: check() for name, check in health.parts_of(backend).items()})

    assert look().status == "ok"

    def fail() -> None:
        raise Unavailable("away")

    monkeypatch.setattr(backend.queue, "check", fail)
    assert look() == health.Readiness(status="degraded", database="ok", store="ok", broker="down")
    monkeypatch.setattr(backend.store, "check", fail)
    assert look().status == "down"


def test_missing_things_are_not_found(backend: Backend) -> None:
    add_dataset(backend)
    job_id = submit(backend).id
    for look in (
        lambda: jobs.get(backend, PROJECT, "job_none"),
        lambda: steering.cancel(backend, PROJECT, "job_none"),
        lambda: pages.page(backend, PROJECT, "job_none", MetricsQuery()),
        lambda: checkpoint_policies.list_checkpoints(backend, PROJECT, "job_none"),
        lambda: jobs.patch(backend, "another", job_id, {}),
        lambda: b"".join(contents.original(backend, PROJECT, "ds_1").chunks),
    ):
        with pytest.raises((NotFound, ObjectMissing)):
            look()
    assert status(backend, job_id) == "queued"
