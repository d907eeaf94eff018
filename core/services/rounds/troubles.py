"""Troubles of rounds: what nobody expected, which is tried again for a time, and then ends them with the reason."""

import logging
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.database.columns import database_now, seconds_since
from core.database.repositories import owned
from core.database.repositories import rounds as rows
from core.database.tables.rounds import Rounds, RoundStep
from core.domain.errors import Conflict, DomainError, NotFound
from core.domain.judging.rounds import RoundsStatus, RoundStepStatus
from core.services.backend import Backend
from core.services.rounds import children
from core.services.rounds.run import OPEN_STEPS
from core.services.transactions import writes

MIN_TRIES = 10
"""Tries in a row that meet trouble before rounds fail of it, however long they have taken."""
MAX_SECONDS = 60.0
"""Time for which a fault that nobody expected is tried again."""
MAX_OUTAGE_SECONDS = 86_400.0
"""The same while something that the service needs is away, such as the store."""

_log = logging.getLogger(__name__)


def note(backend: Backend, rounds_id: str, error: Exception) -> None:
    """Count a trouble and say what it is; the one too many ends the rounds and cancels what is under way.

    `resume` does the stage again.
    """
    is_outage = isinstance(error, DomainError) and error.kind == "unavailable"
    told = error.detail if isinstance(error, DomainError) else "The reason is in the service's log."
    under_way = _note(backend, rounds_id, told, MAX_OUTAGE_SECONDS if is_outage else MAX_SECONDS)
    if under_way is None:
        return
    try:
        children.cancel(backend, under_way)
    except (Conflict, NotFound) as ended:
        _log.info("%s of %s: %s", under_way.child_id, rounds_id, ended.detail)
    except Exception:  # noqa: BLE001 - what ended the rounds may be in its way too
        _log.warning("%s of %s could not be cancelled", under_way.child_id, rounds_id, exc_info=True)


@writes
def _note(session: Session, rounds_id: str, told: str, seconds: float) -> RoundStep | None:
    """Return the step whose child is under way, where the rounds end by this."""
    row = owned.lock(session, Rounds, rounds_id)
    if row is None or row.finished_at is not None:
        return None
    row.num_troubles += 1
    if row.trouble_since is None:
        row.trouble_since = database_now()
    session.flush()
    steps = [step for step in rows.list_steps(session, [rounds_id]) if step.status in OPEN_STEPS]
    due = steps[0] if steps else None
    since = session.scalars(select(seconds_since(Rounds.trouble_since)).where(Rounds.id == rounds_id)).one()
    if row.num_troubles < MIN_TRIES or since < seconds:
        if due is not None:
            due.error_detail = f"{told} It is tried again."
        return None
    rows.release_children(session, rounds_id)
    was_running = due is not None and due.status is RoundStepStatus.RUNNING
    _end(row, steps, f"{told} It was tried {row.num_troubles} times.")
    return due if was_running else None


def _end(row: Rounds, steps: Sequence[RoundStep], detail: str) -> None:
    """End the rounds; `steps`: those that have not ended."""
    now = database_now()
    row.finished_at, row.num_troubles, row.trouble_since = now, 0, None
    if row.status is RoundsStatus.CANCELLED:
        for step in steps:
            step.status, step.finished_at = RoundStepStatus.CANCELLED, now
        return
    row.status, row.error_detail = RoundsStatus.FAILED, detail
    if steps:
        due = steps[0]
        row.error_detail = f"Round {due.round}, {due.stage.value}: {detail}"
        due.status, due.error_detail, due.finished_at = RoundStepStatus.FAILED, detail, now


@writes
def forget(session: Session, rounds_id: str) -> None:
    """Begin to count anew, once the rounds get on."""
    row = owned.lock(session, Rounds, rounds_id)
    if row is None or row.finished_at is not None:
        return
    row.num_troubles, row.trouble_since = 0, None
    for step in rows.list_steps(session, [rounds_id]):
        if step.status is RoundStepStatus.RUNNING:
            step.error_detail = None
