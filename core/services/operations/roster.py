"""Roster of the deployment: workers and API processes with their devices, clocks and disks, and what they work on."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from sqlalchemy.orm import Session

from core.database.repositories import roster as rows
from core.database.tables.gangs import GangMember
from core.database.tables.jobs import Attempt, Job
from core.database.tables.measurements import WorkerPresence
from core.services.access.disk_reserve import Room
from core.services.estimates.workers import ALIVE_SECONDS
from core.services.transactions import reads
from core.services.views import from_row

MAX_PROCESSES = 1000
State = Literal["working", "waiting", "idle", "up", "silent"]


@dataclass(frozen=True, kw_only=True)
class WorkedOn:
    id: str
    project_id: str
    attempt: int
    stage: str | None
    step: int
    total_steps: int
    tokens_per_second: float | None
    nodes: int
    node: int | None
    """The worker's number among the job's nodes; None: it waits for the others."""


@dataclass(frozen=True, kw_only=True)
class ProcessView:
    """A worker or an API process; workers of version 0.1.0 are known by their jobs only."""

    id: str
    kind: str
    state: State
    host: str | None
    version: str | None
    device: str | None
    num_devices: int
    lanes: str | None
    takes_nodes: bool
    """Whether it takes jobs on several nodes."""
    created_at: datetime
    """Its start."""
    seen_at: datetime | None
    """Last sign of life; none of a worker of version 0.1.0."""
    clock_offset_seconds: float | None
    """Its clock minus the database's."""
    disks: list[Room]
    job: WorkedOn | None


@dataclass(frozen=True, kw_only=True)
class ProjectQueue:
    project_id: str
    num_queued: int
    num_running: int
    oldest_queued_seconds: float


@dataclass(frozen=True, kw_only=True)
class RosterView:
    processes: list[ProcessView]
    queue: list[ProjectQueue]


def list_processes(session: Session) -> list[ProcessView]:
    """Return the processes seen within a day, workers first, then by name."""
    running = {job.lease_owner: (job, attempt) for job, attempt in rows.list_running(session, MAX_PROCESSES)}
    members = {member.worker: (member, job) for member, job in rows.list_gang_members(session, MAX_PROCESSES)}
    seen = rows.list_processes(session, MAX_PROCESSES)
    known = [_view(row, silent, running.pop(row.name, None), members.get(row.name)) for row, silent in seen]
    older = [_of_job(owner, *found) for owner, found in running.items() if owner is not None]
    return sorted([*known, *older], key=_order)


@reads
def read_roster(session: Session) -> RosterView:
    """Return all processes seen within a day, and the queue of every project."""
    queue = [
        ProjectQueue(project_id=project, num_queued=queued, num_running=busy, oldest_queued_seconds=oldest or 0.0)
        for project, queued, busy, oldest in rows.count_by_project(session)
    ]
    return RosterView(processes=list_processes(session), queue=queue)


def seen_by(roster: RosterView, project_id: str) -> RosterView:
    """Return what an admin of a project is told: its own jobs and queue; of machines only that they are there.

    A process is named by its kind and a number, in the order of their starts: its name holds that of its host.
    """
    by_start = sorted(roster.processes, key=lambda process: (process.created_at, *_order(process)))
    numbers = {process.id: number for number, process in enumerate(by_start, 1)}
    processes = [
        replace(
            process,
            id=f"{process.kind}-{numbers[process.id]}",
            host=None,
            version=None,
            clock_offset_seconds=None,
            disks=[],
            job=process.job if process.job and process.job.project_id == project_id else None,
        )
        for process in roster.processes
    ]
    return RosterView(
        processes=sorted(processes, key=_order),
        queue=[queue for queue in roster.queue if queue.project_id == project_id],
    )


def _order(process: ProcessView) -> tuple[bool, str]:
    return process.kind == "api", process.id


def _view(
    row: WorkerPresence,
    silent_seconds: float,
    found: tuple[Job, Attempt] | None,
    seated: tuple[GangMember, Job] | None,
) -> ProcessView:
    facts = row.facts or {}
    kind = facts.get("kind", "worker")
    job = _worked_on(found[0], 0) if found else _worked_on(seated[1], seated[0].node) if seated else None
    busy: State = "idle" if job is None else "waiting" if job.node is None else "working"
    state: State = "up" if kind == "api" else busy
    return ProcessView(
        id=row.name,
        kind=kind,
        state="silent" if silent_seconds > ALIVE_SECONDS else state,
        host=row.host,
        version=facts.get("version"),
        device=row.device_class or None,
        num_devices=facts.get("num_devices", 1),
        lanes=facts.get("lanes"),
        takes_nodes=facts.get("takes_nodes", False),
        created_at=row.started_at,
        seen_at=row.seen_at,
        clock_offset_seconds=facts.get("clock_offset_seconds"),
        disks=[_room(what, sizes) for what, sizes in sorted(facts.get("disks", {}).items())],
        job=job,
    )


def _of_job(owner: str, job: Job, attempt: Attempt) -> ProcessView:
    """Return a worker that only its lease tells of."""
    return ProcessView(
        id=owner,
        kind="worker",
        state="working",
        host=attempt.host,
        version=None,
        device=attempt.device,
        num_devices=1,
        lanes=None,
        takes_nodes=False,
        created_at=attempt.started_at,
        seen_at=None,
        clock_offset_seconds=None,
        disks=[],
        job=_worked_on(job, 0),
    )


def _worked_on(job: Job, node: int | None) -> WorkedOn:
    return from_row(WorkedOn, job, stage=job.stage.value if job.stage else None, node=node)


def _room(what: str, sizes: Mapping[str, int]) -> Room:
    return Room(what=what, free_bytes=sizes["free_bytes"], reserve_bytes=sizes["reserve_bytes"])
