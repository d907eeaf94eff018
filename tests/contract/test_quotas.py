"""What a project may store: everything counts, and two at once cannot both take the last of it; on both databases."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from backends import PROJECT, add_dataset, checkpoint_with_policy, claim, publication, submit
from sqlalchemy import select
from sqlalchemy.orm import Session

from core.database.columns import database_after
from core.database.repositories import usage
from core.database.tables.uploads import Arrival
from core.domain.jobs.failure_codes import FailureCode
from core.domain.jobs.job_state import JobStatus
from core.services.access import disk_reserve, projects, quotas
from core.services.access.disk_reserve import DiskReserveReached
from core.services.access.projects import Limits
from core.services.access.quotas import ArrivingBody, StorageQuotaExceeded
from core.services.attempts import lifecycle
from core.services.backend import Backend
from core.services.datasets import parts
from core.services.datasets.parts import NewUpload
from core.services.jobs import jobs, repeats

OPTIONS = {"kind": "preference", "format": "auto"}


def announce(backend: Backend, num_bytes: int) -> str:
    return parts.create(backend, PROJECT, NewUpload(num_bytes=num_bytes, filename="x.jsonl", options=OPTIONS)).id


def stored(backend: Backend) -> dict[str, int]:
    return quotas.get_usage(backend, PROJECT).stored


def test_parts_count_against_the_quota(backend: Backend) -> None:
    """The review's probe: twelve announced files of 900,000 bytes under a limit of 1,000,000."""
    projects.set_limits(backend, PROJECT, Limits(max_stored_bytes=1_000_000))
    first = announce(backend, 900_000)
    for _ in range(11):
        with pytest.raises(StorageQuotaExceeded, match=r"uploads 900,000.*upl_") as refusal:
            announce(backend, 900_000)
    assert refusal.value.context["stored"]["uploads"] == 900_000
    assert refusal.value.context["largest"] == [{"id": first, "num_bytes": 900_000}]
    parts.delete(backend, PROJECT, first)
    announce(backend, 900_000)
    (project,) = projects.list_projects(backend)
    assert project.stored_bytes == 900_000


def test_what_jobs_make_counts_and_a_full_project_starts_no_other(backend: Backend) -> None:
    add_dataset(backend)
    job_id = submit(backend).id
    waiting = submit(backend).id
    held = claim(backend)
    assert held.job_id == job_id
    checkpoint_with_policy(backend, held, 3, {"model.safetensors": bytes(1000)})
    found = stored(backend)
    assert (found["datasets"], found["checkpoints"]) == (1, 2)
    assert found["policies"] >= 1000
    projects.set_limits(backend, PROJECT, Limits(max_stored_bytes=sum(found.values())))
    with pytest.raises(StorageQuotaExceeded, match=job_id):
        submit(backend)
    lifecycle.finish_succeeded(held, publication(backend, held))
    assert jobs.get(backend, PROJECT, job_id).status is JobStatus.SUCCEEDED, "a running job may end"
    assert claim(backend).job_id == waiting, "and what was accepted before is done"
    assert stored(backend)["artifacts"] == 7
    jobs.delete(backend, PROJECT, job_id)
    submit(backend)


def test_a_retried_job_counts_shared_checkpoints_once(backend: Backend) -> None:
    add_dataset(backend)
    submit(backend)
    held = claim(backend)
    checkpoint_with_policy(backend, held, 3, {"model.safetensors": bytes(1000)})
    before = stored(backend)
    lifecycle.finish_failed(held, FailureCode.INTERNAL, "x")
    repeats.retry(backend, PROJECT, held.job_id)
    assert stored(backend) == before


def test_two_at_once_cannot_both_take_the_last_of_it(backend: Backend) -> None:
    projects.set_limits(backend, PROJECT, Limits(max_stored_bytes=1_000_000))
    num_racers = 8
    barrier = threading.Barrier(num_racers)
    taken: list[str] = []

    def race(number: int) -> None:
        body = ArrivingBody(backend, PROJECT)
        barrier.wait()
        try:
            if number % 2:
                body.require(600_000)
                taken.append(body.id)
            else:
                taken.append(announce(backend, 600_000))
        except StorageQuotaExceeded:
            return

    threads = [threading.Thread(target=race, args=(number,)) for number in range(num_racers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 1
    assert sum(stored(backend).values()) == 600_000


def test_an_arriving_body_holds_room_until_it_is_released(backend: Backend) -> None:
    projects.set_limits(backend, PROJECT, Limits(max_stored_bytes=100))
    body, other = ArrivingBody(backend, PROJECT), ArrivingBody(backend, PROJECT)
    body.require(60)
    body.require(80)
    assert stored(backend)["arriving"] == 80
    with pytest.raises(StorageQuotaExceeded, match="arriving 80"):
        other.require(30)
    body.require_step(90)  # a whole step would be over: by the byte then
    assert stored(backend)["arriving"] == 90
    body.release()
    other.require(30)
    assert stored(backend)["arriving"] == 30


def test_room_of_a_process_that_is_gone_is_given_back(backend: Backend) -> None:
    projects.set_limits(backend, PROJECT, Limits(max_stored_bytes=100))
    backend.database.write(lambda session: usage.put_arrival(session, PROJECT, "arr_gone", 90, -1.0))
    assert stored(backend)["arriving"] == 0
    ArrivingBody(backend, PROJECT).require(100)
    quotas.let_go_of_silent(backend)
    assert stored(backend)["arriving"] == 100


def test_below_the_disk_reserve_nothing_new_is_taken_in(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    add_dataset(backend)
    submit(backend)
    free = [backend.settings.disk_reserve_bytes - 1]
    monkeypatch.setattr(disk_reserve, "_free", lambda folder: free[0])
    with pytest.raises(DiskReserveReached, match="PREFTUNE_DISK_RESERVE_BYTES"):
        submit(backend)
    with pytest.raises(DiskReserveReached):
        announce(backend, 10)
    held = claim(backend)
    lifecycle.finish_succeeded(held, publication(backend, held))
    assert jobs.get(backend, PROJECT, held.job_id).status is JobStatus.SUCCEEDED
    free[0] = backend.settings.disk_reserve_bytes + 5
    with pytest.raises(DiskReserveReached):
        announce(backend, 10)
    announce(backend, 5)
    submit(backend)


def test_room_is_that_of_the_nearest_folder(tmp_path: Path, backend: Backend) -> None:
    rooms = disk_reserve.room_of(backend.settings)
    assert {room.what for room in rooms} == {"data", "objects"}
    assert all(room.free_bytes > 0 for room in rooms)


def test_a_body_takes_no_more_than_its_announced_length(backend: Backend) -> None:
    """The frame of a form makes the file a little longer than what its length promised: no step of 64 MiB for that."""
    projects.set_limits(backend, PROJECT, Limits(max_stored_bytes=100_000_000))
    body = ArrivingBody(backend, PROJECT)
    body.require(10_000_000)
    body.require_step(10_000_100, 10_004_096)
    assert stored(backend)["arriving"] == 10_004_096
    ArrivingBody(backend, PROJECT).require(80_000_000)


def expires_within(seconds: float) -> Callable[[Session], bool]:
    return lambda session: (
        session.scalar(select(Arrival.id).where(Arrival.expires_at < database_after(seconds))) is not None
    )


def test_room_of_a_body_that_still_comes_does_not_expire(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    projects.set_limits(backend, PROJECT, Limits(max_stored_bytes=100))
    monkeypatch.setattr(quotas, "ARRIVAL_RENEWAL_SECONDS", 0.0)
    body = ArrivingBody(backend, PROJECT)
    body.require(60)

    def set_expiry(seconds: float) -> None:
        backend.database.write(lambda session: usage.put_arrival(session, PROJECT, body.id, 60, seconds))

    set_expiry(5.0)
    body.require_step(10)
    assert backend.database.read(expires_within(60.0)) is False
    set_expiry(-1.0)
    body.require_step(20)
    assert stored(backend)["arriving"] == 60, "taken again while there is room"
    set_expiry(-1.0)
    ArrivingBody(backend, PROJECT).require(90)
    with pytest.raises(StorageQuotaExceeded):
        body.require_step(30)
