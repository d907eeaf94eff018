"""Blocks of steps for charts of long runs, whose extremes need not be searched point by point."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from sqlalchemy.orm import Session

from core.database.repositories import metric_blocks
from core.database.repositories import metrics as metric_rows
from core.database.repositories.metric_blocks import BLOCK_STEPS, BlockRow
from core.database.repositories.metrics import PointFilter, PointKey, PointRow, Series
from core.database.tables.jobs import Job
from core.domain.jobs.job_state import Stage
from core.services.curves.chosen_points import choose_points

MAX_POINTS_READ = 32 * BLOCK_STEPS
"""Points read at one write: the blocks of a run that has none yet are made over several."""
_SPLITS = ("train", "validation")
_MAIN_CURVE = "loss"


def extend(session: Session, job: Job, fresh: Collection[PointKey]) -> None:
    """Create the blocks that new points completed."""
    for series in {(stage, split) for stage, split, _ in fresh}:
        _extend(session, job, series, [step for stage, split, step in fresh if (stage, split) == series])


def _extend(session: Session, job: Job, series: Series, steps: Sequence[int]) -> None:
    newest = metric_blocks.newest_block(session, job.id, series)
    if min(steps) <= newest:  # a point that came late
        metric_blocks.delete_from(session, job.id, series, min(steps))
        newest = metric_blocks.newest_block(session, job.id, series)
    end = max(steps) // BLOCK_STEPS * BLOCK_STEPS
    if newest + 1 >= end:
        return
    points = metric_rows.list_points_between(session, job.id, series, newest + 1, end, MAX_POINTS_READ)
    blocks = [list(block) for _, block in groupby(points, key=lambda point: point.step // BLOCK_STEPS)]
    if len(points) == MAX_POINTS_READ:
        blocks.pop()  # it may go on
    if blocks:
        metric_blocks.insert_blocks(session, [_block(job, series, block) for block in blocks])


def _block(job: Job, series: Series, points: Sequence[PointRow]) -> dict[str, Any]:
    stage, split = series
    return {
        "job_id": job.id,
        "project_id": job.project_id,
        "stage": stage,
        "split": split,
        "step": points[0].step // BLOCK_STEPS * BLOCK_STEPS + BLOCK_STEPS - 1,
        "first_step": points[0].step,
        "last_step": points[-1].step,
        "extremes": _extremes(points),
    }


def _extremes(points: Sequence[PointRow]) -> dict[str, list[Any]]:
    found = {}
    for name in {name for point in points for name in point.values}:
        curve = [(value, point.step) for point in points if (value := point.values.get(name)) is not None]
        if curve:
            low, high = min(curve), max(curve)
            found[name] = [*low, *high]
    return found


@dataclass(frozen=True)
class _Candidate:
    """A point of which only the values that make it worth showing are known."""

    stage: Stage
    split: str
    step: int
    values: dict[str, float | None] = field(default_factory=dict)


def choose(
    session: Session, job_id: str, where: PointFilter, names: Collection[str], max_points: int
) -> list[PointRow] | None:
    """Choose at most `max_points` points in the order of their numbers; None where there are too few blocks."""
    blocks = [] if where.after else metric_blocks.list_blocks(session, job_id, where)
    if 4 * len(blocks) < max_points:  # a block gives two points, and half of what was asked for draws the curve as well
        return None
    candidates: list[_Candidate] = []
    for series in _series(where):
        mine = [block for block in blocks if (block.stage, block.split) == series]
        begin = mine[-1].step + 1 if mine else 0
        tail = metric_rows.list_points_between(session, job_id, series, begin, None, None)
        candidates += _candidates(series, mine, names)
        candidates += [_Candidate(*series, point.step, point.values) for point in tail]
    chosen = choose_points(candidates, max_points, names)
    found: list[PointRow] = []
    for series in _series(where):
        steps = [point.step for point in chosen if (point.stage, point.split) == series]
        found += metric_rows.list_points_at(session, job_id, series, steps)
    return sorted(found, key=lambda point: point.seq)


def _series(where: PointFilter) -> list[Series]:
    stages = [where.stage] if where.stage else list(Stage)
    return [(stage, split) for stage in stages for split in ([where.split] if where.split else _SPLITS)]


def _candidates(series: Series, blocks: Sequence[BlockRow], names: Collection[str]) -> Iterable[_Candidate]:
    """Return by step the ends, every curve's lowest and highest point, and the main curve's in each block."""
    if not blocks:
        return []
    values: dict[int, dict[str, float | None]] = {blocks[0].first_step: {}, blocks[-1].last_step: {}}
    main = _MAIN_CURVE if not names or _MAIN_CURVE in names else next(iter(names))
    for name in names or {name for block in blocks for name in block.extremes}:
        found = [block.extremes[name] for block in blocks if name in block.extremes]
        shown = found if name == main else found and [min(found), max(found, key=lambda extremes: extremes[2])]
        for low, low_step, high, high_step in shown:
            values.setdefault(low_step, {})[name] = low
            values.setdefault(high_step, {})[name] = high
    return [_Candidate(*series, step, values[step]) for step in sorted(values)]
