"""Rows of metric points, numbered in the order of commits, rewound on resume."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Double,
    Row,
    and_,
    cast,
    delete,
    false,
    func,
    insert,
    literal,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.orm import Session

from core.database.columns import database_now, json_text
from core.database.tables.jobs import Job
from core.database.tables.records import MetricBlock, MetricPoint, RewoundPoint
from core.domain.jobs.job_state import Stage
from core.domain.training.metric_names import NUM_TOKENS

PointKey = tuple[Stage, str, int]
"""(stage, split, step)"""
Series = tuple[Stage, str]
"""(stage, split)"""
_STAGE_ORDER = tuple(Stage)
_MAX_KEYS = 200
"""Keys of one statement; both databases bound the number of parameters."""


@dataclass(frozen=True, kw_only=True)
class PointFilter:
    after: int = 0
    stage: Stage | None = None
    split: str | None = None


@dataclass(frozen=True, kw_only=True)
class ResumePoint:
    stage: Stage
    step: int


def sum_trained_tokens(session: Session, job_id: str) -> int:
    """Sum the tokens that the model computed in the job's optimizer steps."""
    tokens = cast(json_text(MetricPoint.values, NUM_TOKENS), Double)
    is_trained = (MetricPoint.job_id == job_id, MetricPoint.split == "train")
    return int(session.scalar(select(func.sum(tokens)).where(*is_trained)) or 0)


def beyond(table: type[MetricPoint | MetricBlock | RewoundPoint], point: ResumePoint | None) -> ColumnElement[bool]:
    """Condition for points that a run resumed there computes again; all of them for a run from the start."""
    if point is None:
        return table.step >= 0
    later = _STAGE_ORDER[_STAGE_ORDER.index(point.stage) + 1 :]
    same = and_(table.stage == point.stage, table.step > point.step)
    return or_(table.stage.in_(later) if later else false(), same)


def existing_keys(session: Session, job_id: str, keys: Collection[PointKey]) -> set[PointKey]:
    return {(row.stage, row.split, row.step) for row in _find(session, MetricPoint, job_id, keys)}


def insert_points(session: Session, rows: list[dict[str, Any]]) -> None:
    session.execute(insert(MetricPoint).values(at=database_now()), rows)


def take_rewound(session: Session, job_id: str, keys: Collection[PointKey]) -> dict[PointKey, RewoundPoint]:
    """Return and delete the earlier values of these points, if they were rewound."""
    found = {(point.stage, point.split, point.step): point for point in _find(session, RewoundPoint, job_id, keys)}
    for point in found.values():
        session.delete(point)
    return found


def rewind(session: Session, job: Job, point: ResumePoint | None) -> int:
    """Remove later points, keep their values aside, and renumber the rest; return how many were removed.

    The points that stay get numbers over all that were ever given out, so that a reader who holds one of those taken
    back is told by its cursor alone.
    """
    gone = and_(MetricPoint.job_id == job.id, beyond(MetricPoint, point))
    num_gone = session.scalar(select(func.count()).select_from(MetricPoint).where(gone)) or 0
    if not num_gone:
        return 0
    columns = ("job_id", "stage", "split", "step", "project_id", "attempt", "values")
    kept = select(*(getattr(MetricPoint, name) for name in columns)).where(gone)
    session.execute(insert(RewoundPoint).from_select(columns, kept))
    session.execute(delete(MetricPoint).where(gone).execution_options(synchronize_session=False))
    job.rewind_seq = job.last_metric_seq
    job.last_metric_seq = _renumber(session, job)
    return num_gone


def _renumber(session: Session, job: Job) -> int:
    """Number the remaining points above every number given out so far; return the last number.

    Without any, one number is passed over: it stands for "the rewind is seen, and nothing is left".
    """
    mine = MetricPoint.job_id == job.id
    lowest, highest = session.execute(select(func.min(MetricPoint.seq), func.max(MetricPoint.seq)).where(mine)).one()
    if lowest is None:
        return job.rewind_seq + 1
    shift = job.rewind_seq + 1 - int(lowest)
    statement = update(MetricPoint).where(mine).values(seq=MetricPoint.seq + shift)
    session.execute(statement.execution_options(synchronize_session=False))
    return int(highest) + shift


def forget_rewound(session: Session, job_id: str) -> None:
    session.execute(delete(RewoundPoint).where(RewoundPoint.job_id == job_id))


def copy_points(session: Session, source_job_id: str, target: Job, point: ResumePoint) -> None:
    """Copy the curve up to its checkpoint to a retried job."""
    columns = ("job_id", "project_id", "attempt", "seq", "stage", "split", "step", "epoch", "at", "values")
    chosen = select(
        literal(target.id),
        literal(target.project_id),
        literal(0),
        func.row_number().over(order_by=MetricPoint.seq),
        *(getattr(MetricPoint, name) for name in columns[4:]),
    ).where(MetricPoint.job_id == source_job_id, ~beyond(MetricPoint, point))
    session.execute(insert(MetricPoint).from_select(columns, chosen))
    newest = session.scalar(select(func.max(MetricPoint.seq)).where(MetricPoint.job_id == target.id))
    target.last_metric_seq = newest or 0


ValuesByStep = dict[tuple[Stage, int], dict[str, float | None]]
_POINT = (
    MetricPoint.seq,
    MetricPoint.stage,
    MetricPoint.split,
    MetricPoint.step,
    MetricPoint.epoch,
    MetricPoint.at,
    MetricPoint.values,
)
PointRow = Row[int, Stage, str, int, float, Any, dict[str, float | None]]


def list_points(session: Session, job_id: str, where: PointFilter, *, limit: int | None) -> list[PointRow]:
    """Return points in the order of their numbers."""
    statement = select(*_POINT).where(*_matches(job_id, where))
    return list(session.execute(statement.order_by(MetricPoint.seq).limit(limit)))


ValidationRow = Row[str, Stage, int, dict[str, float | None]]


def list_validation(session: Session, job_ids: Collection[str]) -> list[ValidationRow]:
    """Return job, stage, step and values of all validation points of jobs, in the order of their numbers."""
    columns = (MetricPoint.job_id, MetricPoint.stage, MetricPoint.step, MetricPoint.values)
    statement = select(*columns).where(MetricPoint.job_id.in_(job_ids), MetricPoint.split == "validation")
    return list(session.execute(statement.order_by(MetricPoint.job_id, MetricPoint.seq)))


def list_before(session: Session, job_id: str, seq: int, *, limit: int) -> list[PointRow]:
    """Newest first, those with a number under `seq`."""
    statement = select(*_POINT).where(MetricPoint.job_id == job_id, MetricPoint.seq < seq)
    return list(session.execute(statement.order_by(MetricPoint.seq.desc()).limit(limit)))


def list_points_at(session: Session, job_id: str, series: Series, steps: Sequence[int]) -> list[PointRow]:
    found: list[PointRow] = []
    for start in range(0, len(steps), _MAX_KEYS):
        statement = select(*_POINT).where(*_of_series(job_id, series))
        found += session.execute(statement.where(MetricPoint.step.in_(steps[start : start + _MAX_KEYS])))
    return found


def list_points_between(
    session: Session, job_id: str, series: Series, begin: int, end: int | None, limit: int | None
) -> list[PointRow]:
    """Return points of steps from `begin` up to but not `end`, ascending."""
    statement = select(*_POINT).where(*_of_series(job_id, series), MetricPoint.step >= begin)
    if end is not None:
        statement = statement.where(MetricPoint.step < end)
    return list(session.execute(statement.order_by(MetricPoint.step).limit(limit)))


def _of_series(job_id: str, series: Series) -> tuple[ColumnElement[bool], ...]:
    stage, split = series
    return MetricPoint.job_id == job_id, MetricPoint.stage == stage, MetricPoint.split == split


def _matches(job_id: str, where: PointFilter) -> Iterator[ColumnElement[bool]]:
    yield MetricPoint.job_id == job_id
    yield MetricPoint.seq > where.after
    if where.stage is not None:
        yield MetricPoint.stage == where.stage
    if where.split is not None:
        yield MetricPoint.split == where.split


def validation_values(session: Session, job_id: str, steps: Collection[tuple[Stage, int]]) -> ValuesByStep:
    """Return the validation values at those (stage, step) that were evaluated."""
    found = _find(session, MetricPoint, job_id, {(stage, "validation", step) for stage, step in steps})
    return {(point.stage, point.step): point.values for point in found}


def _find(session: Session, table: Any, job_id: str, keys: Collection[PointKey]) -> Iterable[Any]:
    listed = list(keys)
    columns = tuple_(table.stage, table.split, table.step)
    for start in range(0, len(listed), _MAX_KEYS):
        chosen = columns.in_(listed[start : start + _MAX_KEYS])
        yield from session.scalars(select(table).where(table.job_id == job_id, chosen))
