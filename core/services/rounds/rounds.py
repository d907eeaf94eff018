"""Rounds as users handle them: create, get, list, steer, extend, delete; `progress` does their stages."""

from collections.abc import Callable, Sequence
from functools import partial

from sqlalchemy.orm import Session

from core.database.columns import database_now
from core.database.repositories import owned
from core.database.repositories import rounds as rows
from core.database.tables.rounds import Rounds
from core.domain.errors import Conflict, FieldError, InvalidRequest, NotFound, present
from core.domain.judging.rounds import RoundsRequest, RoundsStatus, RoundStage, plan_round, plan_start
from core.failpoints import reach
from core.services.access import audit
from core.services.backend import Backend
from core.services.ids import new_id, new_suffix
from core.services.pages import page_of, read_cursor
from core.services.rounds import renewal, request_checks
from core.services.rounds.run import Run, add_steps
from core.services.rounds.view import RoundsView, view_rounds
from core.services.transactions import reads, writes
from core.services.views import Page

MAX_OPEN = 20
"""Rounds of a project that have not ended."""


class RoundsNotFound(NotFound):
    code = "rounds-not-found"
    title = "There are no such rounds"


class TooManyRounds(Conflict):
    code = "too-many-rounds"
    title = "The project has as many open rounds as it may"


class RoundsEnded(Conflict):
    code = "rounds-ended"
    title = "The rounds have ended"


class RoundsNotDeletable(Conflict):
    code = "rounds-not-deletable"
    title = "The rounds cannot be deleted"


def create(backend: Backend, project_id: str, request: RoundsRequest, *, rounds_id: str | None = None) -> RoundsView:
    """Record rounds; `progress` starts their stages. Raises InvalidRequest naming the fault, TooManyRounds.

    With a `rounds_id` chosen before (see `idempotency`), a repeated call answers the rounds that are there.
    """
    chosen = rounds_id or new_id("rounds")
    checked = request_checks.check(backend, project_id, request, rounds_id=chosen)
    stages = [(0, stage) for stage in plan_start(request)]
    stages += [(1, stage) for stage in plan_round(request, has_earlier=False)]
    suffixes = [new_suffix() for _ in stages]

    def work(session: Session) -> RoundsView:
        known = owned.find(session, Rounds, project_id, chosen)
        if known is not None:
            return view_rounds(session, [known])[0]
        _require_room(session, project_id)
        checked.settle(session, project_id)
        row = Rounds(
            id=chosen,
            project_id=project_id,
            name=request.name,
            user_metadata=request.metadata,
            requested=checked.pinned.model_dump(mode="json", exclude_unset=True),
            status=RoundsStatus.RUNNING,
            num_rounds=request.num_rounds,
            created_at=database_now(),
        )
        session.add(row)
        session.flush()
        add_steps(session, row, stages, suffixes, 0)
        audit.note(session, project_id, "rounds.create", chosen, num_rounds=request.num_rounds)
        reach("rounds.in_transaction")
        return view_rounds(session, [row])[0]

    return backend.database.write(work)


def _require_room(session: Session, project_id: str) -> None:
    rows.lock_project(session, project_id)
    if rows.count_open(session, project_id) >= MAX_OPEN:
        raise TooManyRounds(f"{MAX_OPEN} rounds have not ended; cancel one, or wait.")


@reads
def get(session: Session, project_id: str, rounds_id: str) -> RoundsView:
    return view_rounds(session, [find(session, project_id, rounds_id)])[0]


@reads
def list_page(session: Session, project_id: str, *, limit: int = 20, cursor: str | None = None) -> Page[RoundsView]:
    """Return a page of rounds, newest first."""
    found = owned.newest(session, Rounds, project_id, before=read_cursor(cursor), limit=limit + 1)
    return page_of(found, limit, view_rounds(session, found[:limit]))


def cancel(backend: Backend, project_id: str, rounds_id: str) -> tuple[RoundsView, bool]:
    """Cancel rounds, and tell whether that changes them; `progress` carries it to the child. Raises RoundsEnded."""
    return _change(backend, project_id, rounds_id, "rounds.cancel", partial(_steer, status=RoundsStatus.CANCELLED))


def pause(backend: Backend, project_id: str, rounds_id: str) -> tuple[RoundsView, bool]:
    """Pause rounds: a job stops at a checkpoint, a generation or judgement after its part, and nothing follows."""
    return _change(backend, project_id, rounds_id, "rounds.pause", partial(_steer, status=RoundsStatus.PAUSED))


def _steer(session: Session, row: Rounds, *, status: RoundsStatus) -> bool:
    if row.status is status:
        return False
    if row.status not in (RoundsStatus.RUNNING, RoundsStatus.PAUSED):
        raise RoundsEnded(f"The rounds are {row.status.value}.")
    row.status = status
    return True


def resume(backend: Backend, project_id: str, rounds_id: str) -> tuple[RoundsView, bool]:
    """Resume paused rounds, or failed ones, whose failed stage is tried again by a new child.

    Raises RoundsEnded, TooManyRounds.
    """
    return _change(backend, project_id, rounds_id, "rounds.resume", partial(_resume, suffix=new_suffix()))


def _resume(session: Session, row: Rounds, *, suffix: str) -> bool:
    if row.status is RoundsStatus.RUNNING:
        return False
    if row.status not in (RoundsStatus.PAUSED, RoundsStatus.FAILED):
        advice = "; extend them to go on" if row.status is RoundsStatus.FINISHED else ""
        raise RoundsEnded(f"The rounds are {row.status.value}{advice}.")
    if row.status is RoundsStatus.FAILED:
        _require_room(session, row.project_id)
        renewal.renew_failed(session, Run.read(session, row), suffix)
        row.finished_at = row.error_detail = None
    row.status = RoundsStatus.RUNNING
    return True


def extend(backend: Backend, project_id: str, rounds_id: str, num_rounds: int) -> tuple[RoundsView, bool]:
    """Allow so many rounds all together; rounds that have finished go on.

    Raises RoundsEnded, TooManyRounds, InvalidRequest.
    """
    suffixes = [new_suffix() for _ in RoundStage]
    work = partial(_extend, num_rounds=num_rounds, suffixes=suffixes)
    return _change(backend, project_id, rounds_id, "rounds.extend", work)


def _extend(session: Session, row: Rounds, *, num_rounds: int, suffixes: Sequence[str]) -> bool:
    if row.status in (RoundsStatus.CANCELLED, RoundsStatus.FAILED):
        advice = "; resume them first" if row.status is RoundsStatus.FAILED else ""
        raise RoundsEnded(f"The rounds are {row.status.value}{advice}.")
    run = Run.read(session, row)
    number = run.last_number
    if num_rounds < number:
        fault = f"{number} rounds are done or under way; give more to go on"
        raise InvalidRequest(f"/num_rounds: {fault}", errors=[FieldError("/num_rounds", fault)])
    is_changed = row.num_rounds != num_rounds
    row.num_rounds = num_rounds
    if row.status is RoundsStatus.FINISHED and num_rounds > number:
        _require_room(session, row.project_id)
        stages = [(number + 1, stage) for stage in run.next_stages()]
        add_steps(session, row, stages, suffixes, len(run.steps))
        row.status, row.stop_reason, row.finished_at = RoundsStatus.RUNNING, None, None
        return True
    return is_changed


@writes
def delete(session: Session, project_id: str, rounds_id: str) -> None:
    """Delete the record of rounds that have ended; all that they made stays.

    Raises RoundsNotFound, RoundsNotDeletable.
    """
    row = _lock(session, project_id, rounds_id)
    if row.finished_at is None:
        raise RoundsNotDeletable(f"The rounds are {row.status.value}; cancel them first, and wait for their child.")
    rows.delete_rounds(session, row.id)
    audit.note(session, project_id, "rounds.delete", rounds_id)


@writes
def _change(
    session: Session, project_id: str, rounds_id: str, action: str, change: Callable[[Session, Rounds], bool]
) -> tuple[RoundsView, bool]:
    row = _lock(session, project_id, rounds_id)
    is_changed = change(session, row)
    session.flush()
    if is_changed:
        audit.note(session, project_id, action, rounds_id)
    return view_rounds(session, [row])[0], is_changed


def find(session: Session, project_id: str, rounds_id: str) -> Rounds:
    """Return the row; raises RoundsNotFound."""
    row = owned.find(session, Rounds, project_id, rounds_id)
    return present(row, RoundsNotFound, f"There are no rounds {rounds_id}.")


def _lock(session: Session, project_id: str, rounds_id: str) -> Rounds:
    """Return the row, locked until the transaction ends; raises RoundsNotFound."""
    row = owned.lock(session, Rounds, rounds_id, project_id)
    return present(row, RoundsNotFound, f"There are no rounds {rounds_id}.")
