"""Served answers that are kept for feedback: bounded in number, size and time, listed, deleted."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import orjson
from sqlalchemy.orm import Session

from core.database.columns import database_now
from core.database.repositories import feedback as rows
from core.database.repositories import owned
from core.database.tables.feedback import FeedbackItem, ServedAnswer
from core.domain.arenas.feedback import FeedbackKind
from core.domain.errors import Conflict, NotFound
from core.services.access import audit
from core.services.backend import Backend
from core.services.pages import page_of, read_cursor
from core.services.transactions import deletes, reads, writes
from core.services.views import Page, from_row

MAX_FORGOTTEN = 1000
"""Answers that one pass deletes."""
_SECONDS_OF_DAY = 24 * 3600.0


class AnswerNotFound(NotFound):
    code = "answer-not-found"
    title = "There is no such answer"


class FeedbackFull(Conflict):
    code = "feedback-full"
    title = "The project keeps as many answers as it may"


@dataclass(frozen=True, kw_only=True)
class NewAnswer:
    """An answer as it was served. `prompt` is a text or a list of messages."""

    id: str
    model: str
    prompt: Any
    text: str


@dataclass(frozen=True, kw_only=True)
class FeedbackView:
    id: str
    kind: FeedbackKind
    answer_id: str
    other_id: str | None
    thumb: str | None
    edit: str | None
    comment: str | None
    giver: str
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class AnswerView:
    id: str
    model: str
    prompt: Any
    answer: str
    key_id: str | None
    feedback: list[FeedbackView]
    created_at: datetime
    expires_at: datetime | None
    """When it goes if nothing is said of it; None where something was."""


def answer_id_of(completion_id: str, index: int) -> str:
    """Return the id of a choice of a completion."""
    return f"{completion_id}-{index}"


def require_room(backend: Backend, project_id: str) -> None:
    """Check that one more answer may be kept, before it is made. Raises FeedbackFull."""
    backend.database.read(lambda session: check_room(backend, session, project_id, num_answers=1))


def keep(backend: Backend, project_id: str, key_id: str | None, served: Sequence[NewAnswer]) -> None:
    """Keep answers; a repeated call keeps them once. Raises FeedbackFull."""
    made = [_row(project_id, key_id, each) for each in served]

    def work(session: Session) -> None:
        rows.lock_project(session, project_id)
        known = rows.find_answers(session, [row["id"] for row in made])
        if known:
            return  # the answer to the commit was lost
        num_bytes = sum(row["num_bytes"] for row in made)
        check_room(backend, session, project_id, num_answers=len(made), num_bytes=num_bytes)
        session.add_all(ServedAnswer(**row, created_at=database_now()) for row in made)

    backend.database.write(work)


def check_room(
    backend: Backend,
    session: Session,
    project_id: str,
    *,
    num_answers: int = 0,
    num_items: int = 0,
    num_bytes: int = 0,
) -> None:
    """Check that so much more may be kept. Raises FeedbackFull."""
    settings, kept = backend.settings, rows.total(session, project_id)
    advice = "delete some (DELETE /feedback/answers/{answer_id}), or ask without `store`"
    if max(kept.num_answers + num_answers, kept.num_items + num_items) > settings.feedback_max_answers:
        most = f"{settings.feedback_max_answers:,} (PREFTUNE_FEEDBACK_MAX_ANSWERS)"
        raise FeedbackFull(
            f"The project keeps {kept.num_answers:,} answers and {kept.num_items:,} pieces of feedback; of each it may "
            f"keep {most}: {advice}."
        )
    if kept.num_bytes + num_bytes > settings.feedback_max_bytes:
        most = f"{settings.feedback_max_bytes:,} bytes (PREFTUNE_FEEDBACK_MAX_BYTES)"
        raise FeedbackFull(f"Answers and feedback of the project may take {most}: {advice}.")


@reads
def list_page(
    session: Session, project_id: str, *, keep_days: float, limit: int = 20, cursor: str | None = None
) -> Page[AnswerView]:
    """Return a page of answers with what was said of them, newest first; `keep_days` is their retention without it."""
    found = owned.newest(session, ServedAnswer, project_id, before=read_cursor(cursor), limit=limit + 1)
    items = rows.items_of(session, [row.id for row in found[:limit]])
    return page_of(found, limit, [_view(row, items, keep_days) for row in found[:limit]])


@deletes
def delete(session: Session, project_id: str, answer_id: str) -> None:
    """Delete an answer and all feedback on it. Raises AnswerNotFound."""
    rows.lock_project(session, project_id)
    if owned.find(session, ServedAnswer, project_id, answer_id) is None:
        raise AnswerNotFound(f"The project keeps no answer {answer_id}.")
    rows.delete_answer(session, answer_id)
    audit.note(session, project_id, "feedback.delete", answer_id)


@writes
def delete_all(session: Session, project_id: str) -> None:
    """Delete all answers of the project and all feedback on them."""
    rows.lock_project(session, project_id)
    rows.delete_all(session, project_id)
    audit.note(session, project_id, "feedback.delete_all", None)


def forget_old(backend: Backend) -> int:
    """Delete answers without feedback beyond the retention, some at a time; returns how many."""
    seconds = backend.settings.feedback_days * _SECONDS_OF_DAY
    return backend.database.write(lambda session: rows.delete_old_answers(session, seconds, MAX_FORGOTTEN))


def view_item(item: FeedbackItem) -> FeedbackView:
    return from_row(
        FeedbackView, item, thumb=None if item.is_good is None else "up" if item.is_good else "down", edit=item.edited
    )


def _row(project_id: str, key_id: str | None, served: NewAnswer) -> dict[str, Any]:
    prompt, answer = (orjson.dumps(each).decode() for each in (served.prompt, served.text))
    return {
        "id": served.id,
        "project_id": project_id,
        "key_id": key_id,
        "model": served.model,
        "prompt": prompt,
        "answer": answer,
        "num_bytes": len(prompt.encode()) + len(answer.encode()),
        "is_judged": False,
    }


def _view(row: ServedAnswer, items: Sequence[FeedbackItem], keep_days: float) -> AnswerView:
    return from_row(
        AnswerView,
        row,
        prompt=orjson.loads(row.prompt),
        answer=orjson.loads(row.answer),
        feedback=[view_item(item) for item in items if row.id in (item.answer_id, item.other_id)],
        expires_at=None if row.is_judged else row.created_at + timedelta(days=keep_days),
    )
