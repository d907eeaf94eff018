"""Gangs: jobs on several nodes get all of their workers or none, in the order of the queue, on both databases."""

import random
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from backends import PROJECT, add_dataset, lose, make_backend, make_due, submit
from sqlalchemy import select, text, update
from toy_jobs import events

from core.database.session import Database
from core.database.tables.gangs import GangMember
from core.database.tables.jobs import Job
from core.domain.jobs.failure_codes import FailureCode
from core.domain.jobs.gangs import Seat, Waiting
from core.domain.jobs.job_state import AttemptOutcome
from core.services.access import projects
from core.services.attempts import lifecycle
from core.services.attempts.claimed_job import ClaimedJob
from core.services.backend import Backend
from core.services.jobs import jobs, steering

PROJECTS = (PROJECT, "a", "b")
NUM_JOBS = 200
WORKERS = ("w1", "w2", "w3")


def add_job(backend: Backend, nodes: int, project: str = PROJECT, priority: int = 0) -> str:
    """A queued job; returns its id."""
    job_id = submit(backend, priority=priority).id
    values = {"nodes": nodes, "project_id": project}
    backend.database.write(lambda session: session.execute(update(Job).where(Job.id == job_id).values(values)))
    return job_id


def look(backend: Backend, worker: str, *, device: str = "cpu", has_seat: bool = True) -> ClaimedJob | Waiting | None:
    seat = Seat(member=f"member-{worker}", address="10.0.0.1", hold_seconds=60) if has_seat else None
    return lifecycle.claim_or_wait(backend, worker=worker, host=f"host-{worker}", device=device, seat=seat)


def end(held: ClaimedJob) -> None:
    lifecycle.finish_failed(held, FailureCode.BAD_DATA, "x")


def members(backend: Backend) -> dict[str, str]:
    """Waiting workers, with the job that each waits for."""
    statement = select(GangMember.worker, GangMember.job_id).where(GangMember.attempt.is_(None))
    return {row.worker: row.job_id for row in backend.database.read(lambda session: session.execute(statement).all())}


def shift(backend: Backend, column: str, seconds: float) -> None:
    """Put a time of all members back."""
    back = {"sqlite": f"strftime('%Y-%m-%d %H:%M:%f', {column}, '-{seconds} seconds')"}
    change = back.get(backend.database.engine.dialect.name, f"{column} - interval '{seconds} seconds'")
    backend.database.write(lambda session: session.execute(text(f"UPDATE gang_members SET {column} = {change}")))


@pytest.fixture
def backend(database: Database, tmp_path: Path) -> Backend:
    """A lease that no worker outlives between two looks, on however busy a machine."""
    return make_backend(tmp_path, database, lease_seconds=60.0)


@pytest.fixture(autouse=True)
def dataset(backend: Backend) -> None:
    add_dataset(backend)


@dataclass
class Model:
    """The rule in words of Python: what a worker that looks for a job must be told."""

    queued: dict[str, tuple[str, int, int]] = field(default_factory=dict)
    """Project, priority and nodes of each job, in the order of their age."""
    running: Counter[str] = field(default_factory=Counter)
    waiting: dict[str, str] = field(default_factory=dict)
    called: dict[str, str] = field(default_factory=dict)

    def look(self, worker: str) -> tuple[str, str | None]:
        if worker in self.called:
            return "called", self.called.pop(worker)
        key = {job: (-priority, self.running[name], job) for job, (name, priority, _) in self.queued.items()}
        self.waiting.pop(worker, None)
        if not key:
            return "nothing", None
        first = min(key, key=key.__getitem__)
        project, _, nodes = self.queued[first]
        others = [other for other, job in self.waiting.items() if job == first]
        if len(others) + 1 < nodes:
            self.waiting[worker] = first
            return "waits", first
        for other in others[: nodes - 1]:
            del self.waiting[other]
            self.called[other] = first
        del self.queued[first]
        self.running[project] += 1
        return "starts", first


def test_mixed_jobs_start_in_the_order_of_the_queue_and_all_of_them(backend: Backend) -> None:
    """Jobs on one and on two nodes, of three projects, on three workers that come free in any order."""
    for name in PROJECTS[1:]:
        projects.create(backend, name)
    chance, model = random.Random(26), Model()
    busy: dict[str, ClaimedJob] = {}
    num_submitted, num_ended, starts = 0, 0, Counter[int]()
    for _ in range(100 * NUM_JOBS):
        if num_submitted < NUM_JOBS and chance.random() < 0.3:
            project, priority, nodes = chance.choice(PROJECTS), chance.choice((0, 0, 0, 7, -3)), chance.choice((1, 2))
            model.queued[add_job(backend, nodes, project, priority)] = project, priority, nodes
            num_submitted += 1
        worker = chance.choice(WORKERS)
        if worker not in busy:
            what, job_id = model.look(worker)
            found = look(backend, worker)
            assert (found is None, isinstance(found, Waiting)) == (what == "nothing", what == "waits")
            assert members(backend) == model.waiting
            if isinstance(found, ClaimedJob):
                assert (found.job_id, found.place.node > 0) == (job_id, what == "called")
                busy[worker] = found
                starts[found.place.num_nodes] += what == "starts"
        elif busy[worker].place.node == 0 and chance.random() < 0.5:
            held = busy[worker]
            together = [other for other, claim in busy.items() if claim.job_id == held.job_id]
            if len(together) == held.place.num_nodes:  # the others have found that they are called
                end(held)
                model.running[held.project_id] -= 1
                num_ended += 1
                for other in together:
                    del busy[other]
        if num_ended == NUM_JOBS:
            break
    assert num_ended == NUM_JOBS
    assert starts.total() == NUM_JOBS
    assert min(starts.values()) > NUM_JOBS / 4


def test_a_gang_that_does_not_fill_gives_its_workers_back(backend: Backend) -> None:
    gang, single = add_job(backend, 3), add_job(backend, 1)
    assert look(backend, "w1") == look(backend, "w2") == Waiting(is_new=True)
    assert look(backend, "w1") == Waiting(is_new=False)
    shift(backend, "joined_at", 61)
    taken = look(backend, "w2")
    assert isinstance(taken, ClaimedJob)
    assert taken.job_id == single
    assert members(backend) == {}
    assert look(backend, "w1") is None  # the gang pauses
    (told,) = [event for event in events(backend, gang) if event.kind == "gang_unfilled"]
    assert told.data == {"nodes": 3, "num_waiting": 2, "pause_seconds": 60}
    assert "takes 3 workers" in told.message
    end(taken)
    make_due(backend)
    assert [look(backend, worker) for worker in ("w1", "w2")] == [Waiting(is_new=True)] * 2
    shift(backend, "joined_at", 119)  # they wait twice as long now
    started = look(backend, "w3")
    assert isinstance(started, ClaimedJob)
    assert (started.job_id, started.place.node, started.place.num_nodes) == (gang, 0, 3)
    others = [look(backend, worker) for worker in ("w2", "w1")]
    assert [(other.place.node, other.token) for other in others if isinstance(other, ClaimedJob)] == [
        (2, started.token),
        (1, started.token),
    ]


def test_who_has_gone_and_who_is_of_another_kind_does_not_count(backend: Backend) -> None:
    gang = add_job(backend, 2)
    assert look(backend, "w1") == Waiting(is_new=True)
    assert look(backend, "w2", device="GPU") == Waiting(is_new=True)
    shift(backend, "pulse_at", 100)
    assert look(backend, "w3") == Waiting(is_new=True)
    assert members(backend) == {"w3": gang}
    assert look(backend, "w4", has_seat=False) is None
    assert isinstance(look(backend, "w5"), ClaimedJob)
    assert members(backend) == {}


def test_a_job_that_comes_before_takes_a_waiting_worker(backend: Backend) -> None:
    gang = add_job(backend, 2)
    assert look(backend, "w1") == Waiting(is_new=True)
    urgent_gang = add_job(backend, 2, priority=1)
    assert look(backend, "w1") == Waiting(is_new=True)
    assert members(backend) == {"w1": urgent_gang}
    urgent = add_job(backend, 1, priority=2)
    taken = look(backend, "w1")
    assert isinstance(taken, ClaimedJob)
    assert taken.job_id == urgent
    assert members(backend) == {}
    steering.cancel(backend, PROJECT, urgent_gang)
    assert look(backend, "w2") == Waiting(is_new=True)
    steering.cancel(backend, PROJECT, gang)
    assert look(backend, "w2") is None
    assert members(backend) == {}


@pytest.mark.parametrize("how", ["released", "lost", "finished"])
def test_the_end_of_an_attempt_frees_all_its_nodes(how: str, backend: Backend) -> None:
    gang = add_job(backend, 2)
    look(backend, "w1")
    lead = look(backend, "w2")
    member = look(backend, "w1")
    assert isinstance(lead, ClaimedJob)
    assert isinstance(member, ClaimedJob)
    again = look(backend, "w1")  # as after a lost answer
    assert isinstance(again, ClaimedJob)
    assert (again.attempt, again.place) == (member.attempt, member.place)
    if how == "released":
        lifecycle.release(lead, AttemptOutcome.DRAINED)
    elif how == "lost":
        lose(backend, lead)
    else:
        end(lead)
    expected = None if how == "finished" else Waiting(is_new=True)
    assert look(backend, "w1") == expected
    if expected:
        again = look(backend, "w3")
        assert isinstance(again, ClaimedJob)
        assert (again.job_id, again.attempt) == (gang, 2)
        assert again.token != lead.token


def test_a_worker_may_leave(backend: Backend) -> None:
    add_job(backend, 2)
    assert look(backend, "w1") == Waiting(is_new=True)
    lifecycle.leave_gang(backend, Seat(member="member-w1", address="10.0.0.1", hold_seconds=60))
    assert members(backend) == {}


def test_workers_that_look_at_the_same_moment(backend: Backend) -> None:
    """Each attempt gets all of its nodes, and no worker two jobs."""
    sizes = (2, 1, 2, 3, 1, 2, 2, 3, 2, 1, 2, 2)
    together = {add_job(backend, nodes): threading.Barrier(nodes) for nodes in sizes}
    found: dict[str, list[tuple[str, int]]] = {job_id: [] for job_id in together}
    faults: list[Any] = []
    is_over = threading.Event()

    def work(worker: str) -> None:
        try:
            while not is_over.is_set():
                held = look(backend, worker)
                if not isinstance(held, ClaimedJob):
                    is_over.wait(0.01)
                    continue
                found[held.job_id].append((worker, held.place.node))
                together[held.job_id].wait(30)  # all nodes are there at one time
                if held.place.node == 0:
                    end(held)
                together[held.job_id].wait(30)
        except Exception as error:  # noqa: BLE001 - a thread's failure is the test's
            faults.append(error)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in WORKERS]
    for thread in threads:
        thread.start()
    for _ in range(3000):
        if faults or all(jobs.get(backend, PROJECT, job_id).status.value == "failed" for job_id in together):
            break
        is_over.wait(0.02)
    is_over.set()
    for thread in threads:
        thread.join(60)
    assert not faults
    for job_id, barrier in together.items():
        assert sorted(node for _, node in found[job_id]) == list(range(barrier.parties))
        assert len({worker for worker, _ in found[job_id]}) == barrier.parties


def test_another_number_of_nodes_for_a_job_that_waits(backend: Backend) -> None:
    gang = submit(backend, nodes=3).id
    assert [look(backend, worker) for worker in ("w1", "w2")] == [Waiting(is_new=True)] * 2
    shift(backend, "joined_at", 61)
    assert look(backend, "w1") is None  # too few have come, so it pauses
    changed = jobs.patch(backend, PROJECT, gang, {"nodes": 2})
    assert changed.spec["nodes"] == 2
    assert look(backend, "w1") == Waiting(is_new=True)
    taken = look(backend, "w2")
    assert isinstance(taken, ClaimedJob)
    assert (taken.job_id, taken.place.num_nodes) == (gang, 2)
    with pytest.raises(jobs.JobNotChangeable, match="Pause it first"):
        jobs.patch(backend, PROJECT, gang, {"nodes": 1, "name": "x"})
    lifecycle.release(taken, AttemptOutcome.DRAINED)
    assert look(backend, "w1") == Waiting(is_new=True)
    assert "nodes" not in jobs.patch(backend, PROJECT, gang, {"nodes": 1}).spec
    alone = look(backend, "w3", has_seat=False)
    assert isinstance(alone, ClaimedJob)
    assert (alone.job_id, alone.place.num_nodes) == (gang, 1)
    assert look(backend, "w1") is None
    assert members(backend) == {}
    assert [event.data for event in events(backend, gang) if event.kind == "nodes_changed"] == [
        {"nodes": 2, "nodes_before": 3},
        {"nodes": 1, "nodes_before": 2},
    ]
