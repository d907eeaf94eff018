"""Rows of curve blocks, see `MetricBlock`."""

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, delete, func, insert, literal, select
from sqlalchemy.orm import Session

from core.database.repositories.metrics import PointFilter, ResumePoint, Series, beyond
from core.database.tables.jobs import Job
from core.database.tables.records import MetricBlock
from core.domain.jobs.job_state import Stage

BLOCK_STEPS = 32
BlockRow = Row[Stage, str, int, int, int, dict[str, list[Any]]]
_COLUMNS = ("stage", "split", "step", "first_step", "last_step", "extremes")


def list_blocks(session: Session, job_id: str, where: PointFilter) -> Sequence[BlockRow]:
    """Return the blocks of the series that the filter selects, each in its order."""
    statement = select(*(getattr(MetricBlock, name) for name in _COLUMNS)).where(*_matches(job_id, where))
    return session.execute(statement.order_by(MetricBlock.stage, MetricBlock.split, MetricBlock.step)).all()


def newest_block(session: Session, job_id: str, series: Series) -> int:
    """Return the last step of the newest block; -1 without any."""
    newest = session.scalar(select(func.max(MetricBlock.step)).where(*_of_series(job_id, series)))
    return -1 if newest is None else newest


def insert_blocks(session: Session, rows: list[dict[str, Any]]) -> None:
    session.execute(insert(MetricBlock), rows)


def delete_from(session: Session, job_id: str, series: Series, step: int) -> None:
    """Delete the block that this step belongs to, and all later ones."""
    statement = delete(MetricBlock).where(*_of_series(job_id, series), MetricBlock.step >= step)
    session.execute(statement.execution_options(synchronize_session=False))


def rewind(session: Session, job_id: str, point: ResumePoint | None) -> None:
    """Delete blocks with steps beyond this one; they are made again."""
    statement = delete(MetricBlock).where(MetricBlock.job_id == job_id, beyond(MetricBlock, point))
    session.execute(statement.execution_options(synchronize_session=False))


def copy_blocks(session: Session, source_job_id: str, target: Job, point: ResumePoint) -> None:
    chosen = select(
        literal(target.id), literal(target.project_id), *(getattr(MetricBlock, name) for name in _COLUMNS)
    ).where(MetricBlock.job_id == source_job_id, ~beyond(MetricBlock, point))
    session.execute(insert(MetricBlock).from_select(("job_id", "project_id", *_COLUMNS), chosen))


def _of_series(job_id: str, series: Series) -> tuple[ColumnElement[bool], ...]:
    stage, split = series
    return MetricBlock.job_id == job_id, MetricBlock.stage == stage, MetricBlock.split == split


def _matches(job_id: str, where: PointFilter) -> Iterator[ColumnElement[bool]]:
    yield MetricBlock.job_id == job_id
    if where.stage is not None:
        yield MetricBlock.stage == where.stage
    if where.split is not None:
        yield MetricBlock.split == where.split
