"""Progress of sweeps: members are queued as others end, and follow their sweep when it is cancelled or paused.

Everything here may be done twice, or be interrupted anywhere: a member's job has its id before it is submitted, and
what is missing is found again at the next step.
"""

import logging
from dataclasses import dataclass

from pydantic import ValidationError
from sqlalchemy.orm import Session

from core.database.columns import database_now
from core.database.repositories import owned
from core.database.repositories import sweeps as rows
from core.database.repositories.sweeps import SweepEventDraft
from core.database.session import DatabaseUnavailable
from core.database.tables.jobs import Job
from core.database.tables.sweeps import Sweep, SweepMember
from core.domain.errors import Conflict, DomainError, InvalidRequest, NotFound, Unavailable
from core.domain.jobs.job_spec import JobRequest
from core.domain.jobs.job_state import FINAL_STATUSES, Desired, JobStatus
from core.domain.sweeps import SweepStatus, member_request
from core.failpoints import reach
from core.services.backend import Backend
from core.services.jobs import jobs, steering
from core.services.sweeps import halving
from core.services.sweeps.choice import best_of, value_of
from core.services.sweeps.sharing import Keys, must_wait, shared_keys
from core.services.transactions import reads, writes

MAX_SWEEPS = 200
"""Sweeps of one step."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _State:
    """A sweep as read in one transaction."""

    sweep: Sweep
    members: list[SweepMember]
    known: dict[str, Job]
    """Jobs of the members that have one."""
    made: set[tuple[str, str]]
    """Jobs and their stages whose output is there."""


class _NotRunning(Conflict):
    """The sweep was cancelled, paused or deleted meanwhile."""


def step(backend: Backend, *, after: str = "") -> str:
    """Advance sweeps that have not ended, from the oldest behind `after` on; return where the next step goes on.

    One that fails holds up no other. Raises DatabaseUnavailable.
    """
    found = backend.database.read(lambda session: rows.list_open(session, MAX_SWEEPS, after=after))
    for sweep_id in found:
        try:
            advance(backend, sweep_id)
        except DatabaseUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - the other sweeps must go on whatever this one meets
            _log.warning("%s could not be advanced: %s: %s", sweep_id, type(error).__name__, str(error)[:200])
    return found[-1] if len(found) == MAX_SWEEPS else ""


def advance(backend: Backend, sweep_id: str) -> None:
    """Queue, cancel or resume members as their sweep says, and end it after its last one. Raises Unavailable."""

    state = _read(backend, sweep_id)
    if state is not None and halving.due_rung(state.sweep, state.members, state.known) is not None:
        halving.decide(backend, sweep_id)
        state = _read(backend, sweep_id)
    if state is None:
        return
    for member in state.members:
        job = state.known.get(member.job_id)
        if job is not None and job.status not in FINAL_STATUSES:
            _follow(backend, state.sweep, member, job)
    if state.sweep.status is SweepStatus.RUNNING:
        num_live = _let_go_on(backend, state)
        if not _submit_all(backend, state, num_live):
            return
    _end_if_over(backend, sweep_id)


@reads
def _read(session: Session, sweep_id: str) -> _State | None:
    sweep = session.get(Sweep, sweep_id)
    if sweep is None:
        return None
    members = rows.list_members(session, [sweep_id])
    job_ids = [member.job_id for member in members]
    known = rows.find_jobs(session, job_ids)
    return _State(sweep=sweep, members=members, known=known, made=rows.list_made_stages(session, job_ids))


def _let_go_on(backend: Backend, state: _State) -> int:
    """Queue members that wait at a rung and may go on, while there is room; return how many are queued or running."""
    sweep = state.sweep
    num_live = sum(map(_is_live, state.known.values()))
    for member in state.members:
        job = state.known.get(member.job_id)
        if num_live < sweep.max_parallel and job is not None and halving.may_go_on(sweep, member, job):
            steering.leave_rung(backend, sweep.project_id, job.id, halving.pause_share(sweep, member))
            reach("sweep.member_let_go_on")
            num_live += 1
    return num_live


def _is_live(job: Job) -> bool:
    return job.status not in FINAL_STATUSES and not job.is_at_rung


def _submit_all(backend: Backend, state: _State, num_live: int) -> bool:
    """Queue the waiting members for which there is room and whose shared stages nobody builds; False: no room now."""
    sweep, known = state.sweep, state.known
    waiting = [member for member in state.members if not _is_settled(member, known)]
    if not waiting:
        return True
    submitted = [(member.job_id, _keys(sweep, member)) for member in state.members if member.job_id in known]
    # One at a rung builds nothing any more; what it could not store the next one makes again.
    live = [item for item in submitted if _is_live(known[item[0]])]
    for member in waiting:
        if num_live >= sweep.max_parallel:
            break
        keys = _keys(sweep, member)
        if must_wait(keys, live, submitted, state.made):
            continue
        if not _submit(backend, sweep, member):
            return False
        live.append((member.job_id, keys))
        num_live += 1
    return True


def _keys(sweep: Sweep, member: SweepMember) -> Keys:
    """Return the member's shared stages; none where its job is refused anyhow."""
    try:
        return shared_keys(_request(sweep, member))
    except InvalidRequest:
        return {}


def _is_settled(member: SweepMember, known: dict[str, Job]) -> bool:
    return member.is_submitted or member.error_detail is not None or member.job_id in known


def _follow(backend: Backend, sweep: Sweep, member: SweepMember, job: Job) -> None:
    """Make a member's job do what the sweep does; one that has just ended is left alone.

    What the sweep holds is marked before it is paused and unmarked after it was resumed: a member that a user has
    paused by itself stays paused.
    """
    try:
        if sweep.status is SweepStatus.CANCELLED or member.is_dropped:
            if job.desired is not Desired.CANCEL:
                steering.cancel(backend, sweep.project_id, job.id)
        elif sweep.status is SweepStatus.PAUSED and job.desired is Desired.RUN:
            _mark(backend, member, is_held=True)
            steering.pause(backend, sweep.project_id, job.id)
        elif sweep.status is SweepStatus.RUNNING and member.is_held:
            if job.desired is Desired.PAUSE and not job.is_at_rung:
                steering.resume(backend, sweep.project_id, job.id)
            _mark(backend, member, is_held=False)
    except (Conflict, NotFound) as error:
        _log.info("%s of %s: %s", job.id, sweep.id, error.detail)


@writes
def _mark(session: Session, /, member: SweepMember, **values: object) -> None:
    row = session.get(SweepMember, (member.sweep_id, member.position))
    if row is not None:
        for name, value in values.items():
            setattr(row, name, value)


def _submit(backend: Backend, sweep: Sweep, member: SweepMember) -> bool:
    """Queue a member's job; False where there is no room for it now, or the sweep does not run any more."""

    def require_running(session: Session) -> None:
        # A cancellation waits for this lock, and then finds the job.
        now = owned.lock(session, Sweep, sweep.id)
        if now is None or now.status is not SweepStatus.RUNNING:
            raise _NotRunning(f"The sweep is {'deleted' if now is None else now.status.value}.")

    error_detail: str | None = None
    try:
        request = _request(sweep, member)
        jobs.submit(
            backend,
            sweep.project_id,
            request,
            job_id=member.job_id,
            first=require_running,
            pause_at_share=halving.pause_share(sweep, member),
        )
    except Unavailable:
        raise
    except InvalidRequest as error:  # its dataset or base model is gone meanwhile
        error_detail = error.detail
    except DomainError as error:  # a quota or the disk reserve, where later there may be room, or a change of the sweep
        _log.info("member %d of %s waits: %s", member.position, sweep.id, error.detail)
        return False
    reach("sweep.member_submitted")

    _mark(backend, member, is_submitted=error_detail is None, error_detail=error_detail)
    if error_detail is not None:
        _note_refusal(backend, member, error_detail)
    reach("sweep.member_noted")
    return True


@writes
def _note_refusal(session: Session, member: SweepMember, detail: str) -> None:
    sweep = owned.lock(session, Sweep, member.sweep_id)
    if sweep is not None:
        message = f"Member {member.position} cannot be queued: {detail}"
        data = {"position": member.position, "job_id": member.job_id}
        draft = SweepEventDraft(kind="member_refused", level="warning", message=message, data=data)
        rows.add_event(session, sweep, draft)


def _request(sweep: Sweep, member: SweepMember) -> JobRequest:
    """Return the request of a member's job. Raises InvalidRequest where this release does not take it any more."""
    try:
        base = JobRequest.model_validate(sweep.requested["job"])
    except ValidationError as error:
        raise InvalidRequest(f"The sweep's job is not valid any more: {error.errors()[0]['msg']}.") from None
    request = member_request(base, member.overrides, member.position, sweep_id=sweep.id)
    name = f"{base.name or sweep.name or sweep.id} {member.position}"[:255]
    return JobRequest.model_validate(request.model_dump(mode="json", exclude_unset=True) | {"name": name})


def _end_if_over(backend: Backend, sweep_id: str) -> None:
    _end(backend, sweep_id)
    reach("sweep.ended")


@writes
def _end(session: Session, sweep_id: str) -> None:
    sweep = owned.lock(session, Sweep, sweep_id)
    if sweep is None or sweep.finished_at is not None or sweep.status is SweepStatus.PAUSED:
        return
    members = rows.list_members(session, [sweep_id])
    known = rows.find_jobs(session, [member.job_id for member in members])
    if any(job.status not in FINAL_STATUSES for job in known.values()):
        return
    if sweep.status is SweepStatus.RUNNING:
        if not all(_is_settled(member, known) for member in members):
            return
        sweep.status = SweepStatus.FINISHED
    ended = [(member.job_id, known[member.job_id]) for member in members if member.job_id in known]
    succeeded = [(job_id, job) for job_id, job in ended if job.status is JobStatus.SUCCEEDED]
    sweep.best_job_id = best_of(succeeded, sweep.metric)
    rows.add_event(session, sweep, _ended(sweep, members, succeeded))
    sweep.finished_at = database_now()


def _ended(sweep: Sweep, members: list[SweepMember], succeeded: list[tuple[str, Job]]) -> SweepEventDraft:
    """Describe the end of a sweep."""
    number = f"{len(succeeded)} of {len(members)} members have trained to their end"
    if sweep.best_job_id is None:
        none = f"none has a held-out {sweep.metric}, so no best one is named" if succeeded else "there is no best one"
        message = f"The sweep has ended: {number}; {none}."
    else:
        position = next(member.position for member in members if member.job_id == sweep.best_job_id)
        value = value_of(dict(succeeded)[sweep.best_job_id], sweep.metric)
        message = f"The sweep has ended: {number}; the best is member {position}, {sweep.metric} {value:.4g}."
    data = {"status": sweep.status.value, "best_job_id": sweep.best_job_id, "metric": sweep.metric}
    return SweepEventDraft(kind="ended", message=message, data=data)
