"""Progress of rounds: one stage after the other, each by a child whose id was chosen beforehand.

Everything here may be done twice, or be interrupted anywhere: a child that was created is found again by its id, a
dataset is determined by what it is made of, and how a stage has ended is recorded once.
"""

import logging
from collections.abc import Sequence

from sqlalchemy.orm import Session

from core.database.columns import database_now
from core.database.repositories import owned
from core.database.repositories import rounds as rows
from core.database.session import DatabaseUnavailable
from core.database.tables.rounds import Rounds, RoundStep
from core.datasets.check.check_process import CheckCrashed
from core.domain.errors import Conflict, DomainError, InvalidRequest, NotFound
from core.domain.judging.rounds import (
    CHILD_OF,
    OPTIONAL_STAGES,
    RoundChild,
    RoundsStatus,
    RoundsStopReason,
    RoundStage,
    RoundStepStatus,
)
from core.failpoints import reach
from core.services.backend import Backend
from core.services.ids import new_suffix
from core.services.rounds import children, troubles
from core.services.rounds.children import Ended
from core.services.rounds.run import OPEN_STEPS, Run, add_steps
from core.services.transactions import reads, writes

MAX_ROUNDS = 200
"""Rounds that one step advances."""
MAX_TRIES = 3
"""Tries of a dataset whose check dies."""
MAX_MOVES = 16
"""Stages of rounds that one step starts or ends."""
_WAITED_FOR = frozenset({"limited", "full"})
_WAITED_FOR_CODES = frozenset(
    {"too-many-generations", "too-many-judgements", "too-many-score-requests", "storage-quota-exceeded"}
)

_log = logging.getLogger(__name__)


class _NotRunning(Conflict):
    """The rounds were cancelled, paused or deleted meanwhile."""


def step(backend: Backend, *, after: str = "") -> str:
    """Advance rounds that have not ended, from the oldest behind `after` on; return where the next step goes on.

    Those that fail hold up no others. Raises DatabaseUnavailable.
    """
    found = backend.database.read(lambda session: rows.list_open(session, MAX_ROUNDS, after=after))
    for rounds_id, num_troubles in found:
        try:
            advance(backend, rounds_id)
        except DatabaseUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - the others must go on whatever these ones meet
            has_trace = not isinstance(error, DomainError)
            told = str(error)[:200]
            _log.warning("%s could not be advanced: %s: %s", rounds_id, type(error).__name__, told, exc_info=has_trace)
            troubles.note(backend, rounds_id, error)
        else:
            if num_troubles:
                troubles.forget(backend, rounds_id)
    return found[-1][0] if len(found) == MAX_ROUNDS else ""


def advance(backend: Backend, rounds_id: str) -> None:
    """Start what is due, and record what has ended. Raises Unavailable."""
    for _ in range(MAX_MOVES):
        if not _move(backend, rounds_id):
            return


def _move(backend: Backend, rounds_id: str) -> bool:
    """Make one move; tell whether another may be possible at once."""
    try:
        run = _read(backend, rounds_id)
    except InvalidRequest as error:
        _give_up(backend, rounds_id, error.detail)
        return False
    if run is None:
        return False
    due = run.open_step
    if due is None:
        return _go_on(backend, rounds_id, [new_suffix() for _ in RoundStage])
    if due.status is RoundStepStatus.RUNNING:
        _follow(backend, run, due)
        return _end_if_ended(backend, run, due)
    if run.row.status is RoundsStatus.RUNNING:
        return _start(backend, run, due)
    # Created by a process that died before it was noted; a dataset is looked at once it is told anew what it holds.
    if CHILD_OF[due.stage] is not RoundChild.DATASET and children.is_there(backend, run, due):
        return _mark_started(backend, due)
    return run.row.status is RoundsStatus.CANCELLED and _end_cancelled(backend, rounds_id)


@reads
def _read(session: Session, rounds_id: str) -> Run | None:
    row = session.get(Rounds, rounds_id)
    return None if row is None or row.finished_at is not None else Run.read(session, row)


def _start(backend: Backend, run: Run, due: RoundStep) -> bool:
    """Create the child of a step; False where there is no room for it now, or the rounds do not run any more."""

    def require_running(session: Session) -> None:
        # A cancellation waits for this lock, and then finds the child.
        now = owned.lock(session, Rounds, run.row.id)
        if now is None or now.status is not RoundsStatus.RUNNING:
            raise _NotRunning(f"The rounds are {'deleted' if now is None else now.status.value}.")

    try:
        ended = children.start(backend, run, due, require_running)
    except _NotRunning:
        return True
    except CheckCrashed as error:  # the file is the service's own: somebody killed the check
        if _count_try(backend, due, error.detail) < MAX_TRIES:
            return False
        return _record(backend, due, Ended(status=RoundStepStatus.FAILED, error=error.detail))
    except DomainError as error:
        if error.kind in ("unavailable", "fenced"):
            raise
        if error.kind in _WAITED_FOR or error.code in _WAITED_FOR_CODES:
            _note_waiting(backend, due, error.detail)
            return False
        return _record(backend, due, Ended(status=RoundStepStatus.FAILED, error=error.detail))
    reach("rounds.child_created")
    return _mark_started(backend, due) if ended is None else _record(backend, due, ended)


def _end_if_ended(backend: Backend, run: Run, due: RoundStep) -> bool:
    try:
        ended = children.look(backend, run, due)
    except NotFound as error:
        ended = Ended(status=RoundStepStatus.FAILED, error=error.detail)
    return ended is not None and _record(backend, due, ended)


def _follow(backend: Backend, run: Run, due: RoundStep) -> None:
    """Make the child do what the rounds do; one that has just ended is left alone.

    What the rounds hold is marked before it is paused and unmarked after it was resumed: a job that a user has paused
    stays paused.
    """
    status = run.row.status
    try:
        if status is RoundsStatus.CANCELLED:
            children.cancel(backend, due)
        elif status is RoundsStatus.PAUSED and children.goes_on(backend, due):
            _mark_held(backend, due, is_held=True)
            children.hold(backend, due)
        elif status is RoundsStatus.RUNNING and due.is_held:
            children.release(backend, due)
            _mark_held(backend, due, is_held=False)
    except (Conflict, NotFound) as error:
        _log.info("%s of %s: %s", due.child_id, run.row.id, error.detail)


@writes
def _mark_held(session: Session, /, due: RoundStep, *, is_held: bool) -> None:
    _, found = _locked(session, due)
    if found is not None:
        found.is_held = is_held


def _mark_started(backend: Backend, due: RoundStep) -> bool:
    is_marked = _set_started(backend, due)
    reach("rounds.child_noted")
    return is_marked


@writes
def _set_started(session: Session, due: RoundStep) -> bool:
    _, found = _locked(session, due)
    if found is None or found.status is not RoundStepStatus.WAITING:
        return False
    found.status, found.started_at, found.error_detail = RoundStepStatus.RUNNING, database_now(), None
    return True


@writes
def _note_waiting(session: Session, due: RoundStep, detail: str) -> None:
    """Say why a step cannot begin yet."""
    _, found = _locked(session, due)
    if found is not None and found.status is RoundStepStatus.WAITING and found.error_detail != detail:
        found.error_detail = detail


@writes
def _count_try(session: Session, due: RoundStep, detail: str) -> int:
    """Count a try whose check died; return how many there were."""
    _, found = _locked(session, due)
    if found is None:
        return 0
    found.result = {"num_tries": found.result.get("num_tries", 0) + 1}
    found.error_detail = detail
    return int(found.result["num_tries"])


def _record(backend: Backend, due: RoundStep, ended: Ended) -> bool:
    is_recorded = _set_ended(backend, due, ended)
    reach("rounds.step_recorded")
    return is_recorded


@writes
def _set_ended(session: Session, due: RoundStep, ended: Ended) -> bool:
    """Record how a step has ended, once, and with it the end of the rounds where one follows."""
    row, found = _locked(session, due)
    if row is None or found is None or found.status not in OPEN_STEPS:
        return False
    now = database_now()
    found.status, found.result, found.error_detail = ended.status, ended.result, ended.error
    found.started_at, found.finished_at = found.started_at or now, now
    session.flush()
    reach("rounds.in_transaction")
    if row.status is RoundsStatus.CANCELLED:
        return True
    if ended.status is not RoundStepStatus.SUCCEEDED and found.stage not in OPTIONAL_STAGES:
        row.status, row.finished_at = RoundsStatus.FAILED, now
        row.error_detail = f"Round {found.round}, {found.stage.value}: {ended.error}"
    elif found.stage is RoundStage.PAIR and not ended.result["num_rows"]:
        _end_waiting(session, row, RoundStepStatus.SKIPPED)
        row.status, row.stop_reason, row.finished_at = RoundsStatus.FINISHED, RoundsStopReason.NO_PAIRS, now
    return True


def _go_on(backend: Backend, rounds_id: str, suffixes: Sequence[str]) -> bool:
    goes_on = _plan_next(backend, rounds_id, suffixes)
    reach("rounds.planned")
    return goes_on


@writes
def _plan_next(session: Session, rounds_id: str, suffixes: Sequence[str]) -> bool:
    """Plan the next round, or end the rounds."""
    row = owned.lock(session, Rounds, rounds_id)
    if row is None or row.finished_at is not None:
        return False
    run = Run.read(session, row)
    if run.open_step is not None or row.status is RoundsStatus.PAUSED:
        return False
    if row.status is RoundsStatus.CANCELLED:
        row.finished_at = database_now()
        return False
    reason = run.stop_reason()
    if reason is not None:
        row.status, row.stop_reason, row.finished_at = RoundsStatus.FINISHED, reason, database_now()
        return False
    stages = [(run.last_number + 1, stage) for stage in run.next_stages()]
    add_steps(session, row, stages, suffixes, len(run.steps))
    return True


@writes
def _end_cancelled(session: Session, rounds_id: str) -> bool:
    row = owned.lock(session, Rounds, rounds_id)
    if row is not None and row.status is RoundsStatus.CANCELLED and row.finished_at is None:
        _end_waiting(session, row, RoundStepStatus.CANCELLED)
        row.finished_at = database_now()
    return False


@writes
def _give_up(session: Session, rounds_id: str, detail: str) -> None:
    """End rounds whose request this release does not take any more."""
    row = owned.lock(session, Rounds, rounds_id)
    if row is not None and row.finished_at is None:
        row.status, row.error_detail, row.finished_at = RoundsStatus.FAILED, detail, database_now()
        rows.release_children(session, rounds_id)


def _end_waiting(session: Session, row: Rounds, status: RoundStepStatus) -> None:
    for each in rows.list_steps(session, [row.id]):
        if each.status is RoundStepStatus.WAITING:
            each.status, each.finished_at = status, database_now()


def _locked(session: Session, due: RoundStep) -> tuple[Rounds | None, RoundStep | None]:
    """Lock the rounds of a step and return both as they are now; no step where it has another child by now."""
    row = owned.lock(session, Rounds, due.rounds_id)
    found = session.get(RoundStep, (due.rounds_id, due.position))
    return row, found if found is not None and found.child_id == due.child_id else None
