"""Roster of workers and API processes, and who stores what; on both databases."""

import pytest
from backends import PROJECT, add_dataset, claim, submit
from sqlalchemy import text

from core.database.columns import database_after
from core.database.repositories import roster as roster_rows
from core.database.tables.measurements import WorkerPresence
from core.domain.jobs.gangs import Seat
from core.services.access import projects
from core.services.access.disk_reserve import Room
from core.services.attempts import lifecycle
from core.services.backend import Backend
from core.services.estimates import workers
from core.services.estimates.workers import WorkerFacts
from core.services.operations import diagnosis, presence, roster, storage_use
from core.services.operations.presence import Description, Presence
from core.services.operations.roster import read_roster


def of_worker(backend: Backend, name: str = "worker-1") -> Presence:
    facts = WorkerFacts(name=name, host="host-1", device_class="NVIDIA H200", trains=True, memory_bytes=None)
    return Presence(backend, facts, Description(kind="worker", num_devices=2, lanes="all"))


def put_silent(backend: Backend, name: str, seconds: float) -> None:
    of_worker(backend, name).beat()

    def age(session: object) -> None:
        row = session.get(WorkerPresence, name)  # type: ignore[attr-defined]
        row.seen_at = database_after(-seconds)

    backend.database.write(age)


def test_a_worker_tells_of_itself_and_of_what_it_trains(backend: Backend) -> None:
    of_worker(backend).beat()
    (idle,) = read_roster(backend).processes
    assert (idle.id, idle.state, idle.device, idle.num_devices, idle.job) == (
        "worker-1",
        "idle",
        "NVIDIA H200",
        2,
        None,
    )
    assert abs(idle.clock_offset_seconds or 9) < 5
    assert next((room.what, room.free_bytes > 0) for room in idle.disks) == ("data", True)
    add_dataset(backend)
    job_id = submit(backend).id
    submit(backend)
    held = claim(backend, "worker-1")
    lifecycle.begin(held)
    found = read_roster(backend)
    (working,) = found.processes
    assert working.state == "working"
    assert working.job is not None
    assert (working.job.id, working.job.project_id, working.job.attempt) == (job_id, PROJECT, 1)
    (queue,) = found.queue
    assert (queue.project_id, queue.num_queued, queue.num_running) == (PROJECT, 1, 1)
    assert queue.oldest_queued_seconds >= 0


def test_a_second_sign_of_life_keeps_the_start(backend: Backend) -> None:
    mine = of_worker(backend)
    mine.beat()
    (first,) = read_roster(backend).processes
    mine.beat()
    (second,) = read_roster(backend).processes
    assert second.created_at == first.created_at
    assert second.seen_at is not None
    assert first.seen_at is not None
    assert second.seen_at >= first.seen_at


def test_a_worker_of_the_first_release_is_known_by_its_job(backend: Backend) -> None:
    add_dataset(backend)
    submit(backend)
    lifecycle.begin(claim(backend, "old-worker"))
    (found,) = read_roster(backend).processes
    assert (found.id, found.state, found.seen_at, found.disks) == ("old-worker", "working", None, [])


def test_the_silent_are_shown_for_a_day_and_then_forgotten(backend: Backend) -> None:
    put_silent(backend, "a", workers.ALIVE_SECONDS + 5)
    put_silent(backend, "b", workers.FORGOTTEN_SECONDS + 5)
    assert {one.id: one.state for one in read_roster(backend).processes} == {"a": "silent", "b": "silent"}
    workers.forget_silent(backend)
    assert [one.id for one in read_roster(backend).processes] == ["a"]


def test_a_process_that_ends_leaves_the_roster(backend: Backend) -> None:
    mine = of_worker(backend)
    mine.start()
    mine.stop()
    assert read_roster(backend).processes == []


def test_an_admin_is_told_of_its_own_jobs_alone(backend: Backend) -> None:
    of_worker(backend).beat()
    add_dataset(backend)
    submit(backend)
    lifecycle.begin(claim(backend, "worker-1"))
    found = roster.seen_by(read_roster(backend), "other")
    (worker,) = found.processes
    assert (worker.state, worker.job, worker.host, worker.disks, worker.version) == ("working", None, None, [], None)
    assert found.queue == []
    (own,) = roster.seen_by(read_roster(backend), PROJECT).processes
    assert own.job is not None


def test_an_admin_does_not_read_names_of_hosts_in_those_of_processes(backend: Backend) -> None:
    names = ["gpu-host-7-41-a1b2c3", "gpu-host-7-12-d4e5f6"]
    for name in names:
        of_worker(backend, name).beat()
    facts = WorkerFacts(
        name="api-gpu-host-7-3-aaaaaa", host="gpu-host-7", device_class="", trains=False, memory_bytes=None
    )
    Presence(backend, facts, Description(kind="api")).beat()
    found = roster.seen_by(read_roster(backend), "other").processes
    assert "gpu-host-7" not in repr(found)
    assert [one.id for one in found] == ["worker-1", "worker-2", "api-3"]
    assert [one.id for one in read_roster(backend).processes] == [*sorted(names), "api-gpu-host-7-3-aaaaaa"]


def test_a_clock_and_a_disk_out_of_bounds_are_logged_once(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(presence, "MAX_CLOCK_OFFSET_SECONDS", -1.0)
    reached = Room(what="data", free_bytes=1, reserve_bytes=2)
    monkeypatch.setattr(presence, "room_of", lambda _settings: [reached])
    mine = of_worker(backend)
    mine.beat()
    mine.beat()
    assert capsys.readouterr().out.count("out_of_bounds") == 2


def test_storage_is_listed_by_project_and_page(backend: Backend) -> None:
    for name in ("vision", "speech"):
        projects.create(backend, name)
    projects.set_limits(backend, "speech", projects.Limits(max_stored_bytes=7))
    add_dataset(backend)
    first = storage_use.list_storage(backend, None, limit=2, cursor=None)
    rest = storage_use.list_storage(backend, None, limit=2, cursor=first.next_cursor)
    assert [one.id for one in (*first.data, *rest.data)] == ["default", "speech", "vision"]
    assert rest.next_cursor is None
    assert first.data[0].stored_bytes == sum(first.data[0].stored.values()) > 0
    assert first.data[1].max_stored_bytes == 7
    (own,) = storage_use.list_storage(backend, "vision", limit=20, cursor=None).data
    assert (own.id, own.stored_bytes) == ("vision", 0)


def test_many_processes_are_bounded(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roster, "MAX_PROCESSES", 2)
    for number in range(3):
        of_worker(backend, f"w{number}").beat()
    assert len(read_roster(backend).processes) == 2
    assert backend.database.read(lambda session: session.scalar(text("SELECT count(*) FROM workers"))) == 3
    assert len(backend.database.read(lambda session: roster_rows.list_processes(session, 5))) == 3


def test_workers_of_a_job_on_several_nodes_and_those_that_wait_for_others(backend: Backend) -> None:
    add_dataset(backend)
    job_id = submit(backend, nodes=2).id
    for name in ("worker-1", "worker-2"):
        facts = WorkerFacts(name=name, host="host-1", device_class="CPU", trains=True, memory_bytes=None)
        Presence(backend, facts, Description(kind="worker", num_devices=1, lanes="all", takes_nodes=True)).beat()

    def look(worker: str) -> None:
        seat = Seat(member=worker, address="10.0.0.1", hold_seconds=60)
        lifecycle.claim_or_wait(backend, worker=worker, host="host-1", device="CPU", seat=seat)

    look("worker-1")
    waiting, idle = read_roster(backend).processes
    assert (waiting.state, waiting.takes_nodes, idle.state) == ("waiting", True, "idle")
    assert waiting.job is not None
    assert (waiting.job.id, waiting.job.node, waiting.job.nodes) == (job_id, None, 2)
    look("worker-2")
    found = read_roster(backend).processes
    assert [(process.state, process.job and process.job.node) for process in found] == [("working", 1), ("working", 0)]


def test_the_doctor_names_a_job_that_asks_for_more_workers_than_there_are(backend: Backend) -> None:
    add_dataset(backend)
    facts = WorkerFacts(name="w", host="host-1", device_class="CPU", trains=True, memory_bytes=None)
    Presence(backend, facts, Description(kind="worker", num_devices=1, lanes="all", takes_nodes=True)).beat()

    def nodes() -> tuple[str, str]:
        found = next(finding for finding in diagnosis.diagnose(backend) if finding.name == "nodes")
        return found.state, found.detail

    assert nodes() == ("ok", "1 worker for jobs on several nodes")
    job_id = submit(backend, nodes=2).id
    state, detail = nodes()
    assert state == "warning"
    assert f"{job_id} waits for 2 workers of one kind, and 1 with PREFTUNE_NODE_ADDRESS" in detail
