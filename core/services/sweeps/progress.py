"""Progress of sweeps: members are queued as others end, and follow their sweep when it is cancelled or paused.

Everything here may be done twice, or be interrupted anywhere: a member's job has its id before it is submitted, and
what is missing is found again at the next step.
"""

import logging
from collections.abc import Collection

from pydantic import ValidationError
from sqlalchemy.orm import Session

from core.database.columns import database_now
from core.database.repositories import sweeps as rows
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
from core.services.sweeps.choice import best_of
from core.services.sweeps.sharing import Keys, must_wait, shared_keys

MAX_SWEEPS = 200
"""Sweeps of one step."""

_log = logging.getLogger(__name__)


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

    def read(session: Session) -> tuple[Sweep | None, list[SweepMember], dict[str, Job], set[tuple[str, str]]]:
        members = rows.list_members(session, [sweep_id])
        job_ids = [member.job_id for member in members]
        known = rows.find_jobs(session, job_ids)
        return session.get(Sweep, sweep_id), members, known, rows.list_made_stages(session, job_ids)

    sweep, members, known, made = backend.database.read(read)
    if sweep is None:
        return
    for member in members:
        if member.job_id in known and known[member.job_id].status not in FINAL_STATUSES:
            _follow(backend, sweep, member, known[member.job_id])
    if sweep.status is SweepStatus.RUNNING and not _submit_all(backend, sweep, members, known, made):
        return
    _end_if_over(backend, sweep_id)


def _submit_all(
    backend: Backend,
    sweep: Sweep,
    members: list[SweepMember],
    known: dict[str, Job],
    made: Collection[tuple[str, str]],
) -> bool:
    """Queue the waiting members for which there is room and whose shared stages nobody builds; False: no room now."""
    waiting = [member for member in members if not _is_settled(member, known)]
    if not waiting:
        return True
    submitted = [(member.job_id, _keys(sweep, member)) for member in members if member.job_id in known]
    live = [item for item in submitted if known[item[0]].status not in FINAL_STATUSES]
    for member in waiting:
        if len(live) >= sweep.max_parallel:
            break
        keys = _keys(sweep, member)
        if must_wait(keys, live, submitted, made):
            continue
        if not _submit(backend, sweep, member):
            return False
        live.append((member.job_id, keys))
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
        if sweep.status is SweepStatus.CANCELLED and job.desired is not Desired.CANCEL:
            steering.cancel(backend, sweep.project_id, job.id)
        elif sweep.status is SweepStatus.PAUSED and job.desired is Desired.RUN:
            _mark(backend, member, is_held=True)
            steering.pause(backend, sweep.project_id, job.id)
        elif sweep.status is SweepStatus.RUNNING and member.is_held:
            if job.desired is Desired.PAUSE:
                steering.resume(backend, sweep.project_id, job.id)
            _mark(backend, member, is_held=False)
    except (Conflict, NotFound) as error:
        _log.info("%s of %s: %s", job.id, sweep.id, error.detail)


def _mark(backend: Backend, member: SweepMember, **values: object) -> None:
    def work(session: Session) -> None:
        row = session.get(SweepMember, (member.sweep_id, member.position))
        if row is not None:
            for name, value in values.items():
                setattr(row, name, value)

    backend.database.write(work)


def _submit(backend: Backend, sweep: Sweep, member: SweepMember) -> bool:
    """Queue a member's job; False where there is no room for it now, or the sweep does not run any more."""

    def require_running(session: Session) -> None:
        # A cancellation waits for this lock, and then finds the job.
        now = rows.lock_sweep(session, sweep.id)
        if now is None or now.status is not SweepStatus.RUNNING:
            raise _NotRunning(f"The sweep is {'deleted' if now is None else now.status.value}.")

    error_detail: str | None = None
    try:
        request = _request(sweep, member)
        jobs.submit(backend, sweep.project_id, request, job_id=member.job_id, first=require_running)
    except Unavailable:
        raise
    except InvalidRequest as error:  # its dataset or base model is gone meanwhile
        error_detail = error.detail
    except DomainError as error:  # a quota or the disk reserve, where later there may be room, or a change of the sweep
        _log.info("member %d of %s waits: %s", member.position, sweep.id, error.detail)
        return False
    reach("sweep.member_submitted")

    _mark(backend, member, is_submitted=error_detail is None, error_detail=error_detail)
    reach("sweep.member_noted")
    return True


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
    def work(session: Session) -> None:
        sweep = rows.lock_sweep(session, sweep_id)
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
        sweep.finished_at = database_now()

    backend.database.write(work)
    reach("sweep.ended")
