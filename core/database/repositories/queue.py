"""The job queue: its order, and the claim itself.

Priority comes first. Within one, the project with the fewest running jobs is next, then the older job. So a job's turn
is known beforehand: it is behind as many as its project has running and, before it, queued.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    FromClause,
    Integer,
    Row,
    ScalarSelect,
    Select,
    Subquery,
    func,
    literal,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session

from core.database.columns import database_after, database_now
from core.database.repositories import access, gangs
from core.database.repositories.transitions import STARTED, Claimant, StartedJob, is_due, start
from core.database.tables.access import ProjectLimits
from core.database.tables.base import rows_of
from core.database.tables.jobs import Job
from core.domain.jobs.gangs import Waiting
from core.domain.jobs.job_state import JobStatus
from core.failpoints import reach

_NUM_HEADS = 8
"""Number of projects that a claim tries first, while others take them before it."""
_MAX_CANDIDATES = 64
"""That it tries after those."""
_JOBS, _LIMITS = rows_of(Job), rows_of(ProjectLimits)

Candidate = Row[str, str, int | None, int]
"""A job, its project, how many jobs that may run, and how many workers it takes."""


def claim_next(session: Session, claimant: Claimant) -> StartedJob | Waiting | None:
    """Start the next queued job that is due and that its project may run; of several nodes, wait for the others."""
    seat = claimant.seat
    for job_id, project_id, limit, nodes in _candidates(session, takes_gangs=seat is not None):
        if limit is not None and not _may_run_another(session, project_id):
            continue
        if nodes == 1 and seat is not None and not gangs.leave(session, seat.member):
            return Waiting(is_new=False)  # called meanwhile, as the next look finds
        taken = gangs.join(session, job_id, claimant, seat) if seat and nodes > 1 else start(session, job_id, claimant)
        if taken is not None:
            reach("claim.in_transaction")
            return taken
    if seat is not None:
        gangs.leave(session, seat.member)
    return None


def find_claimed(session: Session, token: str) -> StartedJob | None:
    """Find the job that an earlier run of the same claim took."""
    statement = select(*STARTED).where(Job.status == JobStatus.RUNNING, Job.claim_token == token)
    row = session.execute(statement).one_or_none()
    return None if row is None else StartedJob(*row)


def mark_woken(session: Session, *, after_seconds: float, limit: int) -> int:
    """Count due queued jobs that need a wake-up now, and mark them as woken."""
    silent = or_(Job.wake_sent_at.is_(None), Job.wake_sent_at < database_after(-after_seconds))
    due = (Job.status == JobStatus.QUEUED, Job.next_run_at <= database_now(), silent)
    chosen = select(Job.id).where(*due).order_by(Job.priority.desc(), Job.id).limit(limit)
    job_ids = list(session.scalars(chosen.with_for_update(skip_locked=True)))
    if job_ids:
        statement = update(Job).where(Job.id.in_(job_ids)).values(wake_sent_at=database_now())
        session.execute(statement.execution_options(synchronize_session=False))
    return len(job_ids)


def _candidates(session: Session, *, takes_gangs: bool) -> Iterator[Candidate]:
    """Yield jobs in the order of the queue."""
    yield from session.execute(_first_of_projects(takes_gangs=takes_gangs))
    # Those may all be locked by claims under way. Only then is it worth while to look at the whole queue.
    yield from session.execute(_first_of_all(takes_gangs=takes_gangs))


def _may_run_another(session: Session, project_id: str) -> bool:
    """Whether the project may run another job, checked under a lock as two workers may see the last place."""
    limits = access.lock_limits(session, project_id)
    if limits is None or limits.max_running_jobs is None:
        return True
    return access.count_jobs(session, project_id, JobStatus.RUNNING) < limits.max_running_jobs


# The statements are built once: SQLAlchemy takes longer over that than a database over the whole claim. Limits are
# spelled out, as PostgreSQL plans for a tenth of all rows where it is told them only later.


@cache
def _first_of_projects(*, takes_gangs: bool) -> Select[Any]:
    """Return each project's first due job, one index step per project however long the queue."""
    foremost = _JOBS.alias("foremost")
    none_before = literal_column("0", Integer).label("num_before")
    first = select(foremost.c.id, foremost.c.project_id, foremost.c.priority, foremost.c.nodes, none_before)
    heads = first.where(foremost.c.id == _first_due(takes_gangs=takes_gangs)).cte("heads", recursive=True)
    following = _JOBS.alias("following")
    next_id = _first_due(takes_gangs=takes_gangs, behind=heads)
    more = select(following.c.id, following.c.project_id, following.c.priority, following.c.nodes, none_before)
    heads = heads.union_all(more.select_from(heads.join(following, following.c.id == next_id)))
    return _in_turn(heads, _NUM_HEADS)


@cache
def _first_of_all(*, takes_gangs: bool) -> Select[Any]:
    return _in_turn(_turns(_is_for(_JOBS, takes_gangs)), _MAX_CANDIDATES)


def _is_for(jobs: FromClause, takes_gangs: bool) -> ColumnElement[bool]:
    """Condition of due jobs that a worker may take."""
    return is_due(jobs) if takes_gangs else is_due(jobs) & (jobs.c.nodes == literal_column("1"))


def _first_due(*, takes_gangs: bool, behind: CTE | None = None) -> ScalarSelect[str]:
    """Return the id of the first job in index order; `behind` is the project of that row."""
    jobs = _JOBS.alias()
    order = (jobs.c.project_id, jobs.c.priority.desc(), jobs.c.id)
    statement = select(jobs.c.id).where(_is_for(jobs, takes_gangs)).order_by(*order).limit(literal_column("1"))
    if behind is None:
        return statement.scalar_subquery()
    return statement.where(jobs.c.project_id > behind.c.project_id).correlate(behind).scalar_subquery()


def _in_turn(turns: FromClause, num: int) -> Select[Any]:
    """Return at most so many jobs that their projects may run, in the order of the queue."""
    running = running_of_projects()
    place = turns.c.num_before + func.coalesce(running.c.num, literal_column("0"))
    limit = _LIMITS.c.max_running_jobs
    rows = turns.outerjoin(running, running.c.project_id == turns.c.project_id)
    rows = rows.outerjoin(_LIMITS, _LIMITS.c.project_id == turns.c.project_id)
    may_run = or_(limit.is_(None), limit > place)
    order = (turns.c.priority.desc(), place, turns.c.id)
    return (
        select(turns.c.id, turns.c.project_id, limit, turns.c.nodes)
        .select_from(rows)
        .where(may_run)
        .order_by(*order)
        .limit(literal_column(str(num)))
    )


def _turns(*where: ColumnElement[bool]) -> Subquery:
    """Select queued jobs, each with how many its project has before it."""
    own_order = (_JOBS.c.priority.desc(), _JOBS.c.id)
    number = func.row_number().over(partition_by=_JOBS.c.project_id, order_by=own_order)
    num_before = (number - 1).label("num_before")
    return select(_JOBS.c.id, _JOBS.c.project_id, _JOBS.c.priority, _JOBS.c.nodes, num_before).where(*where).subquery()


def running_of_projects() -> Subquery:
    """Select how many jobs each project runs; those with none are missing."""
    jobs = _JOBS.alias()
    is_running = jobs.c.status == literal(JobStatus.RUNNING, literal_execute=True)
    num = func.count().label("num")
    return select(jobs.c.project_id, num).where(is_running).group_by(jobs.c.project_id).subquery()
