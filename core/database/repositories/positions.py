"""Positions of queued jobs over all projects, in the order in which `queue` takes them.

The queue is counted once, between marks at the jobs that are asked for, and never sorted: it may be long, and users
look often.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby

from sqlalchemy import ColumnElement, and_, case, func, select
from sqlalchemy.orm import Session

from core.database.repositories.queue import running_of_projects
from core.database.repositories.transitions import is_queued
from core.database.tables.base import rows_of
from core.database.tables.jobs import Job


@dataclass(frozen=True)
class _Project:
    num_running: int
    num_before: list[int]
    """Its queued jobs before each mark, by priority and age."""


@dataclass(frozen=True)
class _Marks:
    """Counts of jobs at a job, and before and behind all of its priority."""

    at: int
    start: int
    end: int


def queue_positions(session: Session, jobs: Sequence[Job]) -> dict[str, int]:
    """Return positions, 1 for the next job if no running one ends before; limits and pauses do not count.

    A job that is not in the database gets the place that its id and priority would have.
    """
    if not jobs:
        return {}
    marks, conditions = _mark(jobs)
    projects = _count(session, conditions, {job.project_id for job in jobs})
    return {job.id: 1 + _num_ahead(projects[job.project_id], marks[job.id], projects.values()) for job in jobs}


def _mark(jobs: Sequence[Job]) -> tuple[dict[str, _Marks], list[ColumnElement[bool]]]:
    """Return the marks with conditions for jobs before each; one holds only where no earlier one does."""
    marks: dict[str, _Marks] = {}
    conditions: list[ColumnElement[bool]] = []
    line = sorted(jobs, key=lambda job: (-job.priority, job.id))
    for priority, group in groupby(line, key=lambda job: job.priority):
        alike = list(group)
        start = len(conditions)
        conditions.append(Job.priority > priority)
        conditions.extend(and_(Job.priority == priority, Job.id < job.id) for job in alike)
        end = len(conditions)
        conditions.append(Job.priority == priority)
        marks |= {job.id: _Marks(at, start, end) for at, job in enumerate(alike, start + 1)}
    return marks, conditions


def _count(
    session: Session, conditions: Sequence[ColumnElement[bool]], project_ids: Iterable[str]
) -> dict[str, _Project]:
    """Count the queued jobs at each mark, of all projects that have any and of those asked for."""
    mark = case(*((condition, number) for number, condition in enumerate(conditions)), else_=len(conditions))
    marked = select(Job.project_id, mark.label("mark")).where(is_queued(rows_of(Job))).subquery()
    counted = select(marked.c.project_id, marked.c.mark, func.count()).group_by(marked.c.project_id, marked.c.mark)
    num_at: dict[str, list[int]] = defaultdict(lambda: [0] * (len(conditions) + 1))
    for project_id in project_ids:
        num_at[project_id] = [0] * (len(conditions) + 1)
    for project_id, number, num in session.execute(counted):
        num_at[project_id][number] = num
    running = running_of_projects()
    num_running = {row.project_id: row.num for row in session.execute(select(running.c.project_id, running.c.num))}
    return {name: _Project(num_running.get(name, 0), list(accumulate(nums))) for name, nums in num_at.items()}


def _num_ahead(own: _Project, marks: _Marks, projects: Iterable[_Project]) -> int:
    """Count other projects' jobs that are taken before: those with as many running and ahead in theirs."""
    turn = own.num_running + own.num_before[marks.at]
    num = 0
    for project in projects:
        first = project.num_before[marks.start]
        last = project.num_before[marks.end]
        sooner = min(max(turn - project.num_running, first), last)
        is_tied = first <= turn - project.num_running < last
        is_older = project.num_before[marks.at] > sooner
        num += sooner + (is_tied and is_older)
    return num
