"""Pages of a job's curves, for pollers."""

import csv
import io
from collections.abc import Collection
from dataclasses import dataclass, replace

import orjson
from sqlalchemy.orm import Session

from core.database.repositories import jobs as job_rows
from core.database.repositories import metrics as metric_rows
from core.database.repositories.metrics import PointFilter, PointRow
from core.database.tables.jobs import Job
from core.domain.jobs.job_queries import CurveHead
from core.domain.jobs.job_state import Stage
from core.services.backend import Backend
from core.services.curves import blocks
from core.services.curves.chosen_points import choose_points
from core.services.curves.recent_points import MAX_POINTS, Numbered, RecentPoints
from core.services.jobs import jobs
from core.services.transactions import reads
from core.services.views import MetricPointView, MetricsPage

MAX_PAGE_POINTS = 1000


@dataclass(frozen=True, kw_only=True)
class MetricsQuery:
    after: int = 0
    """The `last_seq` of the page before."""
    stage: Stage | None = None
    split: str | None = None
    names: Collection[str] = ()
    """Values shown; none: all."""
    limit: int = MAX_PAGE_POINTS
    max_points: int | None = None
    """Instead of a page: all points, thinned to at most so many. Every curve keeps its extremes."""

    @property
    def is_plain(self) -> bool:
        """Whether the query asks for all new points without filters."""
        return self.max_points is None and self.stage is None and self.split is None and not self.names


@reads
def page(session: Session, project_id: str, job_id: str, query: MetricsQuery) -> MetricsPage:
    """Return points after `query.after`; a reader with points of a rewound attempt gets `reset` and the first page."""

    return page_of(session, jobs.find(session, project_id, job_id), query)


def json_page(backend: Backend, project_id: str, job_id: str, query: MetricsQuery) -> bytes:
    """Return `page` as JSON."""
    return orjson.dumps(page(backend, project_id, job_id, query), option=orjson.OPT_UTC_Z)


@reads
def look(session: Session, recent: RecentPoints, project_id: str, job_id: str) -> CurveHead:
    """Return the state of a curve after adding its new points to the recent ones. Raises JobNotFound."""
    head = job_rows.find_curve_head(session, project_id, job_id)
    if head is None:
        raise jobs.JobNotFound(f"There is no job {job_id}.")

    def load(after: int) -> list[Numbered]:
        rows = metric_rows.list_points(session, job_id, PointFilter(after=after), limit=MAX_POINTS + 1)
        return [(row.seq, orjson.dumps(view_point(row, ()), option=orjson.OPT_UTC_Z)) for row in rows]

    # What is left of a curve after a rewind has numbers beyond the rewind's.
    recent.extend(job_id, head.rewind_seq, head.last_metric_seq, load)
    return head


def shared_page(recent: RecentPoints, job_id: str, head: CurveHead, query: MetricsQuery) -> bytes | None:
    """Return `json_page` of a plain query from the recent points; None for a reader too far behind, or ahead."""
    reset = 0 < query.after <= head.rewind_seq
    points = recent.between(job_id, max(query.after, head.rewind_seq), head.last_metric_seq)
    if points is None or query.after > head.last_metric_seq:
        return None
    has_more = len(points) > query.limit
    shown = points[: query.limit]
    values = {
        "job_id": job_id,
        "status": head.status,
        "points": [orjson.Fragment(point) for _, point in shown],
        "last_seq": shown[-1][0] if has_more else head.last_metric_seq,
        "has_more": has_more,
        "reset": reset,
    }
    return orjson.dumps(values)


def page_of(session: Session, job: Job, query: MetricsQuery) -> MetricsPage:
    """Return `page` inside the caller's transaction."""
    reset = 0 < query.after <= job.rewind_seq
    after = 0 if reset else query.after
    where = PointFilter(after=after, stage=query.stage, split=query.split)
    if query.max_points is None:
        rows = metric_rows.list_points(session, job.id, where, limit=query.limit + 1)
        has_more = len(rows) > query.limit
        shown = rows[: query.limit]
    else:
        has_more = False
        shown = _thinned(session, job.id, where, query)
    return MetricsPage(
        job_id=job.id,
        status=job.status,
        points=[view_point(row, query.names) for row in shown],
        last_seq=shown[-1].seq if has_more else max(job.last_metric_seq, after),
        has_more=has_more,
        reset=reset,
    )


def _thinned(session: Session, job_id: str, where: PointFilter, query: MetricsQuery) -> list[PointRow]:
    assert query.max_points is not None
    chosen = blocks.choose(session, job_id, where, query.names, query.max_points)
    if chosen is not None:
        return chosen
    return choose_points(metric_rows.list_points(session, job_id, where, limit=None), query.max_points, query.names)


def all_points(
    backend: Backend, project_id: str, job_id: str, query: MetricsQuery | None = None
) -> list[MetricPointView]:
    """Return all points that the query selects, read in pages."""
    query = query or MetricsQuery()
    points: list[MetricPointView] = []
    while True:
        part = page(backend, project_id, job_id, query)
        points = part.points if part.reset else points + part.points
        if not part.has_more:
            return points
        query = replace(query, after=part.last_seq)


def csv_text(backend: Backend, project_id: str, job_id: str, query: MetricsQuery) -> str:
    """Return `all_points` as CSV."""
    return to_csv(all_points(backend, project_id, job_id, query))


def to_csv(points: Collection[MetricPointView]) -> str:
    """Write one row per point, with a column for each value that any point has."""
    names = sorted({name for point in points for name in point.values})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["seq", "stage", "split", "step", "epoch", "at", *names])
    for point in points:
        values = ["" if (value := point.values.get(name)) is None else repr(value) for name in names]
        at = point.at.isoformat().replace("+00:00", "Z")
        writer.writerow([point.seq, point.stage.value, point.split, point.step, point.epoch, at, *values])
    return text.getvalue()


def view_point(row: PointRow, names: Collection[str] = ()) -> MetricPointView:
    values = {name: row.values[name] for name in names if name in row.values} if names else row.values
    return MetricPointView(
        seq=row.seq, stage=row.stage, split=row.split, step=row.step, epoch=row.epoch, at=row.at, values=values
    )
