"""Gangs: workers that are reserved for a job on several nodes, all of its nodes or none.

A worker that comes to such a job in the queue waits in its gang, and looks again every second. Whoever makes the gang
complete starts the attempt, in one transaction under the lock of the job's row. A worker is one row, so it is in one
gang at most.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Row, delete, insert, select, update
from sqlalchemy.orm import Session

from core.database.columns import database_after, database_now, seconds_since
from core.database.repositories.events import EventDraft, append_event
from core.database.repositories.jobs import lock_job
from core.database.repositories.transitions import STARTED, Claimant, StartedJob, is_due, start
from core.database.tables.base import rows_of
from core.database.tables.gangs import GangMember
from core.database.tables.jobs import Job
from core.domain.jobs.gangs import Seat, Waiting

MAX_HOLD_SECONDS = 6 * 3600.0
_MEMBERS, _JOBS = rows_of(GangMember), rows_of(Job)


class CalledJob(NamedTuple):
    """A started job that a worker is a node of."""

    job: StartedJob
    node: int
    token: str


def hold_seconds(first: float, num_unfilled: int) -> float:
    """Return how long members wait for the others, and how long their job pauses afterwards.

    Args:
        first: that time for a job whose members never waited in vain.
    """
    return min(MAX_HOLD_SECONDS, first * 2.0 ** min(num_unfilled, 32))


def find_called(session: Session, member: str) -> CalledJob | None:
    """Find the running attempt that others have started with this worker; forgets one that has ended."""
    mine = (_MEMBERS.c.id == member, _MEMBERS.c.attempt.is_not(None))
    columns = select(*STARTED, _MEMBERS.c.node, _MEMBERS.c.claim_token, _JOBS.c.claim_token)
    row = session.execute(
        columns.join_from(_MEMBERS, _JOBS, _JOBS.c.id == _MEMBERS.c.job_id).where(*mine)
    ).one_or_none()
    if row is None:
        return None
    *fields, node, token, current = row
    if token == current:
        return CalledJob(StartedJob(*fields), node, token)
    session.execute(delete(_MEMBERS).where(*mine))
    return None


def join(session: Session, job_id: str, claimant: Claimant, seat: Seat) -> StartedJob | Waiting | None:
    """Wait in the job's gang, or start the job with it where it is complete.

    None: the job is to be passed over, since another worker has it locked, or its members have waited too long and are
    free again.
    """
    waiting = _list_waiting(session, job_id)
    if _is_quiet(waiting, claimant, seat) and _renew(session, job_id, seat):
        return Waiting(is_new=False)
    job = lock_job(session, job_id, skip_locked=True)
    if job is None or not _is_due(session, job_id):
        return None
    _drop_silent(session, job_id, claimant.lease_seconds)
    waiting = _list_waiting(session, job_id, is_locked=True)
    others = [row for row in waiting if row.id != seat.member and row.device == claimant.device]
    is_complete = len(others) + 1 >= job.nodes
    hold = hold_seconds(seat.hold_seconds, job.num_unfilled)
    if not is_complete and any(row.waited > hold for row in waiting):
        _give_back(session, job, len(waiting), hold)
        return None
    if not _sit_down(session, job, claimant, seat):
        return Waiting(is_new=False)  # called to another job meanwhile
    if is_complete:
        return _start(session, job, claimant, seat, others[: job.nodes - 1])
    return Waiting(is_new=all(row.id != seat.member for row in waiting))


def leave(session: Session, member: str) -> bool:
    """Take a worker out of the gang that it waits in, if it does; False where it has been called to a job."""
    session.execute(delete(_MEMBERS).where(_MEMBERS.c.id == member, _MEMBERS.c.attempt.is_(None)))
    return session.scalar(select(_MEMBERS.c.id).where(_MEMBERS.c.id == member)) is None


def _is_due(session: Session, job_id: str) -> bool:
    """Whether a job whose row is locked is still what the queue had it for."""
    return session.scalar(select(_JOBS.c.id).where(_JOBS.c.id == job_id, is_due(_JOBS))) is not None


def _is_quiet(waiting: Sequence[Row[Any]], claimant: Claimant, seat: Seat) -> bool:
    """Whether a worker that waits in this gang has nothing to do but to wait on."""
    mine = [row for row in waiting if row.id == seat.member]
    if not mine:
        return False
    num_alike = sum(row.device == claimant.device for row in waiting)
    hold = hold_seconds(seat.hold_seconds, mine[0].num_unfilled)
    is_live = all(row.silent <= claimant.lease_seconds and row.waited <= hold for row in waiting)
    return is_live and num_alike < mine[0].nodes


def _list_waiting(session: Session, job_id: str, *, is_locked: bool = False) -> Sequence[Row[Any]]:
    """Return the waiting members in the order in which they joined, with figures of their job."""
    columns = (
        _MEMBERS.c.id,
        _MEMBERS.c.host,
        _MEMBERS.c.device,
        seconds_since(_MEMBERS.c.joined_at).label("waited"),
        seconds_since(_MEMBERS.c.pulse_at).label("silent"),
        _JOBS.c.nodes,
        _JOBS.c.num_unfilled,
    )
    statement = select(*columns).join_from(_MEMBERS, _JOBS, _JOBS.c.id == _MEMBERS.c.job_id)
    statement = statement.where(*_waits(job_id)).order_by(_MEMBERS.c.joined_at, _MEMBERS.c.id)
    if is_locked:
        statement = statement.with_for_update(of=_MEMBERS)
    return session.execute(statement).all()


def _waits(job_id: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return _MEMBERS.c.job_id == job_id, _MEMBERS.c.attempt.is_(None)


def _renew(session: Session, job_id: str, seat: Seat) -> bool:
    """Renew a waiting member's pulse; False if it does not wait there any more."""
    statement = update(_MEMBERS).where(*_waits(job_id), _MEMBERS.c.id == seat.member).values(pulse_at=database_now())
    return session.execute(statement.returning(_MEMBERS.c.id)).one_or_none() is not None


def _drop_silent(session: Session, job_id: str, lease_seconds: float) -> None:
    session.execute(delete(_MEMBERS).where(*_waits(job_id), seconds_since(_MEMBERS.c.pulse_at) > lease_seconds))


def _sit_down(session: Session, job: Job, claimant: Claimant, seat: Seat) -> bool:
    """Make the worker wait in this gang, and in no other; False if it was called to a job meanwhile."""
    if _renew(session, job.id, seat):
        return True
    values = {
        "job_id": job.id,
        "project_id": job.project_id,
        "worker": claimant.worker,
        "host": claimant.host,
        "device": claimant.device,
        "address": seat.address,
        "joined_at": database_now(),
        "pulse_at": database_now(),
    }
    moved = update(_MEMBERS).where(_MEMBERS.c.id == seat.member, _MEMBERS.c.attempt.is_(None)).values(values)
    if session.execute(moved.returning(_MEMBERS.c.id)).one_or_none() is not None:
        return True
    if session.scalar(select(_MEMBERS.c.id).where(_MEMBERS.c.id == seat.member)) is not None:
        return False
    session.execute(insert(_MEMBERS).values(id=seat.member, **values))
    return True


def _start(session: Session, job: Job, claimant: Claimant, seat: Seat, others: Sequence[Row[Any]]) -> StartedJob | None:
    """Start an attempt of the worker, which leads, with these members; those left over are free again."""
    places = [(claimant.host, claimant.device), *((row.host, row.device) for row in others)]
    started = start(session, job.id, claimant, places)
    if started is None:
        return None
    for node, member in enumerate([seat.member, *(row.id for row in others)]):
        values = {
            "attempt": started.attempt,
            "node": node,
            "claim_token": claimant.token,
            "pulse_at": database_now(),
            "pulse_seq": 0,
            "port": None,
            "part": None,
            "report": None,
        }
        session.execute(update(_MEMBERS).where(_MEMBERS.c.id == member).values(values))
    session.execute(delete(_MEMBERS).where(*_waits(job.id)))
    return started


def _give_back(session: Session, job: Job, num_waiting: int, hold: float) -> None:
    """Free all members, and let the job pause for as long as they have waited."""
    session.execute(delete(_MEMBERS).where(*_waits(job.id)))
    message = (
        f"The job takes {job.nodes} workers of one kind at a time, and {num_waiting} came within {hold:.0f} s. They "
        f"are free again for other jobs; it is tried again in {hold:.0f} s."
    )
    data = {"nodes": job.nodes, "num_waiting": num_waiting, "pause_seconds": hold}
    append_event(session, job, EventDraft(kind="gang_unfilled", message=message, level="warning", data=data))
    session.flush()
    values = {"next_run_at": database_after(hold), "num_unfilled": job.num_unfilled + 1, "wake_sent_at": None}
    session.execute(update(_JOBS).where(_JOBS.c.id == job.id).values(values))
