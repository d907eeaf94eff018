"""Views of rounds, made from rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from core.database.repositories import rounds as rows
from core.database.tables.rounds import Rounds, RoundStep
from core.domain.judging.rounds import CHILD_OF, RoundChild, RoundsStatus, RoundsStopReason, RoundStage, RoundStepStatus
from core.services.views import from_row


@dataclass(frozen=True, kw_only=True)
class StepView:
    round: int
    stage: RoundStage
    status: RoundStepStatus
    kind: RoundChild
    child_id: str
    earlier_ids: list[str]
    result: dict[str, Any]
    error: str | None
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class RoundView:
    number: int
    status: RoundStepStatus
    start_policy: str | None
    policy: str | None
    num_pairs: int | None
    win_rate: dict[str, Any] | None
    length_controlled: dict[str, Any] | None
    win_rate_first: dict[str, Any] | None
    drift: dict[str, Any] | None
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class RoundsView:
    id: str
    name: str | None
    status: RoundsStatus
    num_rounds: int
    first_policy: str | None
    best_policy: str | None
    stop_reason: RoundsStopReason | None
    error: str | None
    rounds: list[RoundView]
    steps: list[StepView]
    requested: dict[str, Any]
    metadata: dict[str, str]
    created_at: datetime
    finished_at: datetime | None


def view_rounds(session: Session, found: Sequence[Rounds]) -> list[RoundsView]:
    steps: dict[str, list[RoundStep]] = {row.id: [] for row in found}
    for step in rows.list_steps(session, list(steps)):
        steps[step.rounds_id].append(step)
    return [_view_one(row, steps[row.id]) for row in found]


def _view_one(row: Rounds, steps: Sequence[RoundStep]) -> RoundsView:
    first = _first_policy(row, steps)
    views: list[RoundView] = []
    policy = first
    for number in sorted({step.round for step in steps} - {0}):
        start = first if row.requested.get("reference") == "first" else policy
        views.append(_view_round(number, [step for step in steps if step.round == number], start))
        policy = views[-1].policy or policy
    return from_row(
        RoundsView,
        row,
        first_policy=first,
        best_policy=_best_policy(first, views),
        error=row.error_detail,
        rounds=views,
        steps=[_view_step(step) for step in steps],
        metadata=row.user_metadata,
    )


def _first_policy(row: Rounds, steps: Sequence[RoundStep]) -> str | None:
    """Return the name of the policy that the rounds start from; None while it is being trained."""
    if row.requested.get("initial") is None:
        return str(row.requested["job"]["base_model"])
    return next((step.child_id for step in steps if step.stage is RoundStage.INITIAL and _is_done(step)), None)


def _best_policy(first: str | None, views: Sequence[RoundView]) -> str | None:
    """Return the policy with the highest win rate against the first one; that one where none wins more than half."""
    found = [(view.win_rate_first["value"], -view.number, view.policy) for view in views if view.win_rate_first]
    best = max(found, default=None)
    return best[2] if best is not None and best[0] > 0.5 else first


def _view_round(number: int, steps: Sequence[RoundStep], start: str | None) -> RoundView:
    by_stage = {step.stage: step for step in steps if _is_done(step)}

    def of(stage: RoundStage, name: str) -> Any:
        return by_stage[stage].result.get(name) if stage in by_stage else None

    against_first = RoundStage.COMPARE_FIRST
    if all(step.stage is not against_first for step in steps):
        against_first = RoundStage.COMPARE
    train = by_stage.get(RoundStage.TRAIN)
    ends = [step.finished_at for step in steps]
    return RoundView(
        number=number,
        status=_status(steps),
        start_policy=start,
        policy=None if train is None else train.child_id,
        num_pairs=of(RoundStage.PAIR, "num_rows"),
        win_rate=of(RoundStage.COMPARE, "win_rate"),
        length_controlled=of(RoundStage.COMPARE, "length_controlled"),
        win_rate_first=of(against_first, "win_rate"),
        drift=of(RoundStage.DRIFT, "drift") or of(RoundStage.DRIFT_FIRST, "drift"),
        started_at=min((step.started_at for step in steps if step.started_at), default=None),
        finished_at=max(end for end in ends if end) if all(ends) else None,
    )


def _status(steps: Sequence[RoundStep]) -> RoundStepStatus:
    """Return the state of a round: of a stage that it waits for, else of the first that did not go well."""
    states = [step.status for step in steps]
    if RoundStepStatus.RUNNING in states or (RoundStepStatus.WAITING in states and RoundStepStatus.SUCCEEDED in states):
        return RoundStepStatus.RUNNING
    if RoundStepStatus.WAITING in states:
        return RoundStepStatus.WAITING
    measured = [step.status for step in steps if step.stage not in (RoundStage.DRIFT, RoundStage.DRIFT_FIRST)]
    return next((state for state in measured if state is not RoundStepStatus.SUCCEEDED), RoundStepStatus.SUCCEEDED)


def _is_done(step: RoundStep) -> bool:
    return step.status is RoundStepStatus.SUCCEEDED


def _view_step(step: RoundStep) -> StepView:
    return from_row(
        StepView,
        step,
        kind=CHILD_OF[step.stage],
        earlier_ids=list(step.earlier["ids"]),
        error=step.error_detail,
    )
