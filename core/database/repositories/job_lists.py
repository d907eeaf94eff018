"""Lists of jobs: filtered, searched, sorted, in pages that neither repeat nor skip a job while others come and go."""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, String, and_, func, literal, or_, select, type_coerce
from sqlalchemy.orm import Session

from core.database.columns import Timestamp, json_text
from core.database.repositories.datasets import is_named
from core.database.tables.datasets import Dataset
from core.database.tables.jobs import Job
from core.domain.jobs.job_queries import NOTES_KEY, TAGS_KEY, JobFilter, JobPosition

_NAME_CHARS = 24
"""Letters of a name by which jobs are sorted: they go into cursors."""


def list_jobs(
    session: Session, project_id: str, where: JobFilter, *, after: JobPosition | None, limit: int
) -> list[tuple[Job, JobPosition]]:
    """Return jobs in the order of `where.sort`, each with its position, from behind `after` on.

    Jobs without the value that is sorted by come last; of equal ones the newest comes first.
    """
    value = _sort_value(where.sort.removeprefix("-"))
    is_falling = where.sort.startswith("-")
    columns: Select[Any] = select(Job, value.label("sort_value"))
    statement = _matching(columns.where(Job.project_id == project_id), where)
    if after is not None:
        statement = statement.where(_behind(value, after, is_falling=is_falling))
    order = [value.desc() if is_falling else value.asc()]
    if where.sort.removeprefix("-") != "created":  # which the index of jobs by id serves
        order = [value.is_(None).asc(), *order, Job.id.desc()]
    rows = session.execute(statement.order_by(*order).limit(limit))
    return [(job, JobPosition(value=_plain(found), job_id=job.id)) for job, found in rows]


def _matching(statement: Select[Any], where: JobFilter) -> Select[Any]:
    if where.status is not None:
        statement = statement.where(Job.status == where.status)
    for key, text in where.metadata.items():
        statement = statement.where(json_text(Job.user_metadata, key) == text)
    for key, name in (("variant", where.variant), ("base_model", where.base_model)):
        if name is not None:
            statement = statement.where(json_text(Job.spec, key) == name)
    if where.dataset_id is not None:
        used = (Job.dataset_id, Job.sft_dataset_id, Job.validation_dataset_id)
        named = select(Dataset.id).where(or_(is_named(where.dataset_id), Dataset.root_id == where.dataset_id))
        is_used = (or_(column == where.dataset_id, column.in_(named)) for column in used)
        statement = statement.where(or_(*is_used))
    if where.tag is not None:
        tags = func.replace(json_text(Job.user_metadata, TAGS_KEY), ", ", ",")
        statement = statement.where((literal(",") + tags + ",").contains(f",{where.tag},", autoescape=True))
    if where.search is not None:
        texts = (Job.name, Job.id, json_text(Job.user_metadata, TAGS_KEY), json_text(Job.user_metadata, NOTES_KEY))
        statement = statement.where(or_(*(text.icontains(where.search, autoescape=True) for text in texts)))
    return statement


def _sort_value(name: str) -> ColumnElement[Any]:
    held_out = Job.results["held_out"]
    values: dict[str, ColumnElement[Any]] = {
        "created": type_coerce(Job.id, String()),
        "name": func.substr(func.lower(Job.name), 1, _NAME_CHARS),
        "finished": type_coerce(Job.finished_at, Timestamp()),
        "loss": held_out["loss"]["value"].as_float(),
        "accuracy": held_out["reward_accuracy"]["value"].as_float(),
        "margin": held_out["reward_margin"]["value"].as_float(),
    }
    return values[name]


def _behind(value: ColumnElement[Any], after: JobPosition, *, is_falling: bool) -> ColumnElement[bool]:
    if after.value is None:
        return and_(value.is_(None), Job.id < after.job_id)
    is_time = isinstance(value.type, Timestamp)
    bound = datetime.fromisoformat(str(after.value)) if is_time else after.value
    beyond = value < bound if is_falling else value > bound
    if after.value == after.job_id:
        return beyond
    return or_(value.is_(None), beyond, and_(value == bound, Job.id < after.job_id))


def _plain(value: Any) -> str | float | None:
    return value.isoformat() if isinstance(value, datetime) else value
