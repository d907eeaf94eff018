"""Decisions of successive halving: at each rung, which members go on, once all that come to it have paused there.

A decision is one transaction under the lock on the sweep: who goes on, with its values and an event. What follows from
it (jobs queued again or cancelled) `progress` does from those rows, as often as it takes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from core.database.repositories import owned
from core.database.repositories import sweeps as rows
from core.database.repositories.events import SWEEPER, EventDraft, append_event
from core.database.repositories.jobs import lock_job
from core.database.repositories.sweeps import SweepEventDraft
from core.database.tables.jobs import Job
from core.database.tables.sweeps import Sweep, SweepMember
from core.domain.halving import best_first, num_kept
from core.domain.jobs.job_state import FINAL_STATUSES, JobStatus
from core.domain.sweeps import SweepStatus
from core.failpoints import reach
from core.services.backend import Backend
from core.services.transactions import writes

RUNG_DECIDED = "rung_decided"
MAX_NAMED = 10
"""Members that an event's sentence names; its data has all."""


@dataclass(frozen=True, kw_only=True)
class RungValue:
    """A member's figure at a rung."""

    member: SweepMember
    step: int | None
    value: float | None
    is_new: bool
    """It has come since the rung was decided last."""


def rungs_of(sweep: Sweep) -> list[float]:
    """Return the shares of their steps at which the sweep's members pause; none where all train to their end."""
    return list((sweep.halving or {}).get("rungs", []))


def pause_share(sweep: Sweep, member: SweepMember) -> float | None:
    """Return where the member's job pauses next; None: it trains to its end."""
    rungs = rungs_of(sweep)
    return rungs[member.rung] if member.rung < len(rungs) else None


def may_go_on(sweep: Sweep, member: SweepMember, job: Job) -> bool:
    """Whether the job waits at a rung from which the sweep has let it go on."""
    return job.is_at_rung and not member.is_dropped and job.pause_at_share != pause_share(sweep, member)


def due_rung(sweep: Sweep, members: Sequence[SweepMember], known: Mapping[str, Job]) -> int | None:
    """Return the rung that can be decided: the lowest that members are on their way to, once all of them are there."""
    for rung in range(len(rungs_of(sweep))):
        here = [member for member in members if member.rung == rung and not member.is_dropped]
        coming = [member for member in here if not _is_out(member, known)]
        if coming:
            return rung if all(_has_come(member, known) for member in coming) else None
    return None


def decide(backend: Backend, sweep_id: str) -> bool:
    """Decide the rung that is due, if any; tell whether there was one."""
    is_decided = _decide_due(backend, sweep_id)
    reach("sweep.rung_decided")
    return is_decided


@writes
def _decide_due(session: Session, sweep_id: str) -> bool:
    sweep = owned.lock(session, Sweep, sweep_id)
    if sweep is None or sweep.status is not SweepStatus.RUNNING:
        return False
    members = rows.list_members(session, [sweep_id])
    known = rows.find_jobs(session, [member.job_id for member in members])
    rung = due_rung(sweep, members, known)
    if rung is None:
        return False
    _decide(session, sweep, rung, _values_at(session, sweep, rung, members, known))
    reach("sweep.rung_in_transaction")
    return True


def _is_out(member: SweepMember, known: Mapping[str, Job]) -> bool:
    """Whether the member comes to no rung any more: refused, deleted, failed or cancelled."""
    job = known.get(member.job_id)
    if job is None:
        return member.error_detail is not None or member.is_submitted
    return job.status in (JobStatus.FAILED, JobStatus.CANCELLED)


def _has_come(member: SweepMember, known: Mapping[str, Job]) -> bool:
    """Whether it waits at its rung; one that early stopping has ended before is compared by its last evaluation."""
    job = known.get(member.job_id)
    return job is not None and ((job.is_at_rung and job.status is JobStatus.PAUSED) or job.status in FINAL_STATUSES)


def _values_at(
    session: Session, sweep: Sweep, rung: int, members: Sequence[SweepMember], known: Mapping[str, Job]
) -> list[RungValue]:
    """Return the figures of all that have come to a rung, now or before it was last decided, in their order."""
    found: list[RungValue] = []
    for member in members:
        before = (member.rung_values or {}).get(str(rung))
        if before is not None:
            found.append(RungValue(member=member, step=before["step"], value=before["value"], is_new=False))
        elif member.rung == rung and not member.is_dropped and not _is_out(member, known):
            step, values = rows.newest_validation(session, member.job_id) or (None, {})
            found.append(RungValue(member=member, step=step, value=values.get(sweep.metric), is_new=True))
    return found


def _decide(session: Session, sweep: Sweep, rung: int, found: Sequence[RungValue]) -> None:
    order = best_first([item.value for item in found], sweep.metric)
    number = num_kept(len(found), sweep.halving["eta"] if sweep.halving else 1)
    has_values = any(item.value is not None for item in found)
    kept = set(order[:number]) if has_values else set(range(len(found)))
    place_of = {place: number for number, place in enumerate(order, 1)}
    for place, item in enumerate(found):
        if not item.is_new:
            continue
        member = item.member
        member.rung_values = {**(member.rung_values or {}), str(rung): {"step": item.step, "value": item.value}}
        if place in kept:
            member.rung += 1
        else:
            member.is_dropped = True
            _tell_job(session, sweep, item, f"{place_of[place]} of {len(found)}", number)
    session.flush()
    rows.add_event(session, sweep, _event(sweep, rung, found, kept, order, has_values=has_values))


def _tell_job(session: Session, sweep: Sweep, item: RungValue, place: str, number: int) -> None:
    """Say in the job's own events why it is cancelled."""
    job = lock_job(session, item.member.job_id)
    if job is None or job.status in FINAL_STATUSES:
        return
    message = (
        f"Its sweep goes on without it: {sweep.metric} {_shown(item.value)} at step {item.step} is place {place}, and "
        f"{number} go on. It is cancelled; a retry goes on from its checkpoint."
    )
    data = {"sweep": sweep.id, "metric": sweep.metric, "value": item.value, "step": item.step}
    append_event(session, job, EventDraft(kind="dropped", message=message, data=data, actor=SWEEPER))


def _event(
    sweep: Sweep, rung: int, found: Sequence[RungValue], kept: set[int], order: Sequence[int], *, has_values: bool
) -> SweepEventDraft:
    """Describe a decision: every member's figure, the best first, and which go on."""
    ranked = [(found[place], place in kept) for place in order]
    data: dict[str, Any] = {
        "rung": rung,
        "share": rungs_of(sweep)[rung],
        "metric": sweep.metric,
        "members": [
            {
                "position": item.member.position,
                "job_id": item.member.job_id,
                "step": item.step,
                "value": item.value,
                "goes_on": goes_on,
                "is_new": item.is_new,
            }
            for item, goes_on in ranked
        ],
    }
    where = f"Rung {rung + 1} of {len(rungs_of(sweep))}"
    if not has_values:
        message = f"{where}: no member has a value of {sweep.metric} there, so all of them go on."
        return SweepEventDraft(kind=RUNG_DECIDED, level="warning", message=message, data=data)
    kept_ones = _named([item for item, goes_on in ranked if goes_on])
    others = _named([item for item, goes_on in ranked if not goes_on])
    message = f"{where}, by {sweep.metric}: on with {kept_ones}" + (f"; cancelled: {others}." if others else ".")
    return SweepEventDraft(kind=RUNG_DECIDED, message=message, data=data)


def _named(items: Sequence[RungValue]) -> str:
    named = [f"member {item.member.position} ({_shown(item.value)})" for item in items[:MAX_NAMED]]
    rest = [f"{len(items) - MAX_NAMED} more"] if len(items) > MAX_NAMED else []
    return ", ".join(named + rest)


def _shown(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"
