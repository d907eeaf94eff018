"""Rows of answers that were kept, and of feedback on them."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, and_, delete, exists, func, or_, select, update
from sqlalchemy.orm import Session

from core.database.columns import database_after
from core.database.tables.feedback import FeedbackItem, ServedAnswer
from core.database.tables.projects import Project
from core.domain.arenas.feedback import FeedbackKind


class Totals(NamedTuple):
    num_answers: int
    num_items: int
    num_bytes: int


def lock_project(session: Session, project_id: str) -> None:
    """Let nobody else add to the project's answers and feedback, or delete them, before the transaction ends."""
    session.execute(select(Project.id).where(Project.id == project_id).with_for_update(key_share=True))


def total(session: Session, project_id: str) -> Totals:
    """Return what the project keeps."""

    def count(table: type[ServedAnswer] | type[FeedbackItem]) -> tuple[int, int]:
        figures = func.count(), func.coalesce(func.sum(table.num_bytes), 0)
        number, size = session.execute(select(*figures).where(table.project_id == project_id)).one()
        return int(number), int(size)

    (num_answers, answer_bytes), (num_items, item_bytes) = count(ServedAnswer), count(FeedbackItem)
    return Totals(num_answers, num_items, answer_bytes + item_bytes)


def find_answers(session: Session, answer_ids: Sequence[str]) -> dict[str, ServedAnswer]:
    rows = session.scalars(select(ServedAnswer).where(ServedAnswer.id.in_(answer_ids)))
    return {row.id: row for row in rows}


def list_items(
    session: Session, project_id: str, kinds: Sequence[FeedbackKind], *, after: str, limit: int
) -> list[FeedbackItem]:
    """Return feedback newer than the id `after`, oldest first."""
    statement = select(FeedbackItem).where(FeedbackItem.project_id == project_id, FeedbackItem.id > after)
    statement = statement.where(FeedbackItem.kind.in_(kinds)).order_by(FeedbackItem.id).limit(limit)
    return list(session.scalars(statement))


def items_of(session: Session, answer_ids: Sequence[str]) -> list[FeedbackItem]:
    """Return feedback on any of these answers, oldest first."""
    return list(session.scalars(select(FeedbackItem).where(_is_on(answer_ids)).order_by(FeedbackItem.id)))


def delete_like(session: Session, item: FeedbackItem) -> None:
    """Delete what the item is to take the place of: its kind's on the same answer, or on the same two."""
    same = (FeedbackItem.answer_id == item.answer_id, FeedbackItem.other_id.is_(None), FeedbackItem.kind == item.kind)
    condition = and_(*same)
    if item.other_id is not None:
        pair = (item.answer_id, item.other_id)
        condition = and_(FeedbackItem.answer_id.in_(pair), FeedbackItem.other_id.in_(pair))
    session.execute(delete(FeedbackItem).where(condition))


def delete_answer(session: Session, answer_id: str) -> None:
    """Delete an answer with the feedback on it; the other answers of its preferences may be unjudged again."""
    items = items_of(session, [answer_id])
    others = {one for item in items for one in (item.answer_id, item.other_id) if one not in (None, answer_id)}
    session.execute(delete(FeedbackItem).where(_is_on([answer_id])))
    on_it = exists().where(or_(FeedbackItem.answer_id == ServedAnswer.id, FeedbackItem.other_id == ServedAnswer.id))
    session.execute(update(ServedAnswer).where(ServedAnswer.id.in_(others), ~on_it).values(is_judged=False))
    session.execute(delete(ServedAnswer).where(ServedAnswer.id == answer_id))


def delete_all(session: Session, project_id: str) -> None:
    session.execute(delete(FeedbackItem).where(FeedbackItem.project_id == project_id))
    session.execute(delete(ServedAnswer).where(ServedAnswer.project_id == project_id))


def delete_old_answers(session: Session, age_seconds: float, limit: int) -> int:
    """Delete answers without feedback beyond the age, oldest first; returns how many."""
    is_unjudged = ServedAnswer.is_judged.is_(False)
    old = select(ServedAnswer.id).where(ServedAnswer.created_at < database_after(-age_seconds), is_unjudged)
    ids = list(session.scalars(old.order_by(ServedAnswer.created_at).limit(limit)))
    # Asked again: feedback given meanwhile changes the row, which the database then looks at anew.
    session.execute(delete(ServedAnswer).where(ServedAnswer.id.in_(ids), is_unjudged))
    return len(ids)


def _is_on(answer_ids: Sequence[str]) -> ColumnElement[bool]:
    return or_(FeedbackItem.answer_id.in_(answer_ids), FeedbackItem.other_id.in_(answer_ids))
