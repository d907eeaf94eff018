"""Sweeps as users handle them: create, get, list, steer, extend, delete."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from sqlalchemy.orm import Session

from core.database.columns import database_now
from core.database.repositories import owned
from core.database.repositories import sweeps as rows
from core.database.repositories.sweeps import SweepEventDraft
from core.database.tables.sweeps import Sweep, SweepMember
from core.domain.errors import Conflict, FieldError, InvalidRequest, NotFound, present
from core.domain.jobs.job_spec import JobRequest
from core.domain.sweeps import (
    FINAL_SWEEPS,
    MAX_MEMBERS,
    Overrides,
    SweepRequest,
    SweepStatus,
    member_request,
    plan_members,
    require_held_out,
    settle_metric,
    settle_request,
    without_repetitions,
)
from core.failpoints import reach
from core.services.access import audit
from core.services.backend import Backend
from core.services.ids import new_id
from core.services.jobs import submission
from core.services.pages import page_of, read_cursor
from core.services.sweeps.view import SweepView, view_sweeps
from core.services.transactions import reads, writes
from core.services.views import Page

MAX_OPEN = 20
"""Sweeps of a project that have not ended."""
_EVENT_OF = {
    SweepStatus.RUNNING: "resumed",
    SweepStatus.PAUSED: "paused",
    SweepStatus.CANCELLED: "cancelled",
}
_MESSAGES = {
    SweepStatus.RUNNING: "Resumed.",
    SweepStatus.PAUSED: "Paused: its members stop at a checkpoint each.",
    SweepStatus.CANCELLED: "Cancelled, with all members that have not ended.",
}


class SweepNotFound(NotFound):
    code = "sweep-not-found"
    title = "There is no such sweep"


class TooManySweeps(Conflict):
    code = "too-many-sweeps"
    title = "The project has as many open sweeps as it may"


class SweepEnded(Conflict):
    code = "sweep-ended"
    title = "The sweep has ended"


class SweepNotDeletable(Conflict):
    code = "sweep-not-deletable"
    title = "The sweep cannot be deleted"


def create(backend: Backend, project_id: str, request: SweepRequest, *, sweep_id: str | None = None) -> SweepView:
    """Record a sweep; its jobs are queued by `progress`. Raises InvalidRequest naming a faulty member, TooManySweeps.

    With a `sweep_id` chosen before (see `idempotency`), a repeated call answers the sweep that is there.
    """
    chosen = sweep_id or new_id("sweep")
    members = plan_members(request)
    requests = [
        member_request(request.job, overrides, position, sweep_id=chosen)
        for position, overrides in enumerate(members, 1)
    ]
    metric = settle_request(request, requests)
    drafts = [submission.prepare(backend, member) for member in requests]

    def work(session: Session) -> SweepView:
        known = owned.find(session, Sweep, project_id, chosen)
        if known is not None:
            return view_sweeps(session, [known])[0]
        if rows.count_open(session, project_id) >= MAX_OPEN:
            raise TooManySweeps(f"{MAX_OPEN} sweeps have not ended; cancel one, or wait.")
        settled = [_check(session, project_id, draft, position) for position, draft in enumerate(drafts, 1)]
        requested = request.model_dump(mode="json", exclude_unset=True)
        sweep = Sweep(
            id=chosen,
            project_id=project_id,
            name=request.name,
            user_metadata=request.metadata,
            requested={**requested, "job": _pinned(requested["job"], members, settled)},
            status=SweepStatus.RUNNING,
            metric=metric,
            max_parallel=request.max_parallel,
            halving=request.plan_halving(len(members)),
            created_at=database_now(),
        )
        session.add(sweep)
        session.flush()
        _add_members(session, sweep, list(map(_pinned_member, members, settled)), 0)
        rows.add_event(session, sweep, _created(sweep, len(members)))
        audit.note(session, project_id, "sweep.create", chosen, num_members=len(members))
        reach("sweep.in_transaction")
        return view_sweeps(session, [sweep])[0]

    return backend.database.write(work)


def _pinned(job: dict[str, Any], members: Sequence[Overrides], settled: Sequence[submission.Settled]) -> dict[str, Any]:
    """Return the job with the versions named that its members read of the datasets that it names itself."""
    for overrides, found in zip(members, settled, strict=True):
        if "dataset_version" not in overrides:
            job = submission.pin_versions(job, *found.datasets)
    return job


def _pinned_member(overrides: Overrides, found: submission.Settled) -> Overrides:
    """Return a member's settings with the versions named that it reads of datasets of its own."""
    named = {path: row for path, row in found.datasets_by_setting.items() if path in overrides}
    return overrides | {path: submission.pinned_name(overrides[path], row) for path, row in named.items()}


def _created(sweep: Sweep, num_members: int) -> SweepEventDraft:
    message = f"{num_members} members."
    if sweep.halving is not None:
        shares = ", ".join(f"{share:.3g}" for share in sweep.halving["rungs"])
        where = f"at {shares} of their steps" if shares else "nowhere, for there are too few"
        message += f" They are compared by {sweep.metric} {where}; the best 1/{sweep.halving['eta']} go on."
    return SweepEventDraft(kind="created", message=message, data={"num_members": num_members, "halving": sweep.halving})


def _check(session: Session, project_id: str, draft: submission.Draft, position: int) -> submission.Settled:
    """Check a member's job as `POST /jobs` would. Raises InvalidRequest naming the member."""
    try:
        return submission.settle(session, project_id, draft)
    except InvalidRequest as error:
        errors = [FieldError(f"/job{fault.pointer}", f"member {position}: {fault.detail}") for fault in error.errors]
        raise InvalidRequest(f"Member {position}: {error.detail}", errors=errors) from None


def _add_members(session: Session, sweep: Sweep, members: Sequence[Overrides], first: int) -> None:
    session.add_all(
        SweepMember(
            sweep_id=sweep.id,
            position=position,
            project_id=sweep.project_id,
            job_id=new_id("job"),
            overrides=overrides,
        )
        for position, overrides in enumerate(members, first + 1)
    )
    session.flush()


@reads
def get(session: Session, project_id: str, sweep_id: str) -> SweepView:
    return view_sweeps(session, [find(session, project_id, sweep_id)])[0]


@reads
def list_page(session: Session, project_id: str, *, limit: int = 20, cursor: str | None = None) -> Page[SweepView]:
    """Return a page of sweeps, newest first."""
    found = owned.newest(session, Sweep, project_id, before=read_cursor(cursor), limit=limit + 1)
    return page_of(found, limit, view_sweeps(session, found[:limit]))


def set_status(backend: Backend, project_id: str, sweep_id: str, status: SweepStatus) -> tuple[SweepView, bool]:
    """Cancel, pause or resume a sweep, and tell whether that changes it; `progress` carries it to its members.

    Raises SweepNotFound, SweepEnded.
    """

    return _change(backend, project_id, sweep_id, f"sweep.{status.value}", partial(_set_status, status=status))


def _set_status(session: Session, sweep: Sweep, *, status: SweepStatus) -> bool:
    if sweep.status is status:
        return False
    if sweep.status in FINAL_SWEEPS:
        raise SweepEnded(f"The sweep is {sweep.status.value}.")
    sweep.status = status
    rows.add_event(session, sweep, SweepEventDraft(kind=_EVENT_OF[status], message=_MESSAGES[status]))
    return True


def extend(backend: Backend, project_id: str, sweep_id: str, members: Sequence[Overrides]) -> tuple[SweepView, bool]:
    """Add members that the sweep does not have. Raises SweepNotFound, SweepEnded (cancelled), InvalidRequest."""

    def change(session: Session, sweep: Sweep) -> bool:
        if sweep.status is SweepStatus.CANCELLED:
            raise SweepEnded("The sweep is cancelled.")
        known = rows.list_members(session, [sweep.id])
        there = [member.overrides for member in known]
        asked = without_repetitions(list(members), there)
        if len(known) + len(asked) > MAX_MEMBERS:
            raise InvalidRequest(f"A sweep has at most {MAX_MEMBERS} members.")
        job = JobRequest.model_validate(sweep.requested["job"])
        pinned: list[Overrides] = []
        for position, overrides in enumerate(asked, len(known) + 1):
            member = member_request(job, overrides, position, sweep_id=sweep.id)
            settle_metric(sweep.metric, [member], position)
            if sweep.halving is not None:
                require_held_out([member], position)
            settled = _check(session, project_id, submission.prepare(backend, member), position)
            pinned.append(_pinned_member(overrides, settled))
        fresh = without_repetitions(pinned, there)
        _add_members(session, sweep, fresh, len(known))
        if fresh:
            data = {"num_members": len(fresh), "first_position": len(known) + 1}
            event = SweepEventDraft(kind="extended", message=f"{len(fresh)} members were added.", data=data)
            rows.add_event(session, sweep, event)
        if fresh and sweep.status is SweepStatus.FINISHED:
            sweep.status, sweep.finished_at, sweep.best_job_id = SweepStatus.RUNNING, None, None
        return bool(fresh)

    return _change(backend, project_id, sweep_id, "sweep.extend", change)


@writes
def delete(session: Session, project_id: str, sweep_id: str) -> None:
    """Delete the record of a sweep that has ended; its jobs stay. Raises SweepNotFound, SweepNotDeletable."""
    sweep = find(session, project_id, sweep_id)
    if sweep.finished_at is None:
        raise SweepNotDeletable(f"The sweep is {sweep.status.value}; cancel it first, and wait for its jobs.")
    rows.delete_sweep(session, sweep.id)
    audit.note(session, project_id, "sweep.delete", sweep_id)


@writes
def _change(
    session: Session, project_id: str, sweep_id: str, action: str, change: Callable[[Session, Sweep], bool]
) -> tuple[SweepView, bool]:
    sweep = present(owned.lock(session, Sweep, sweep_id, project_id), SweepNotFound, f"There is no sweep {sweep_id}.")
    is_changed = change(session, sweep)
    session.flush()
    if is_changed:
        audit.note(session, project_id, action, sweep_id)
    return view_sweeps(session, [sweep])[0], is_changed


def find(session: Session, project_id: str, sweep_id: str) -> Sweep:
    return present(owned.find(session, Sweep, project_id, sweep_id), SweepNotFound, f"There is no sweep {sweep_id}.")
