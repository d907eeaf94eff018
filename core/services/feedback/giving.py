"""Feedback on served answers: a thumb, an edit, or a preference; the latest takes the place of what was said before."""

from dataclasses import dataclass

import orjson
from sqlalchemy.orm import Session

from core.database.columns import database_now
from core.database.repositories import feedback as rows
from core.database.repositories import owned
from core.database.tables.feedback import FeedbackItem, ServedAnswer
from core.domain.arenas.feedback import FeedbackKind
from core.domain.errors import FieldError, InvalidRequest
from core.services.backend import Backend
from core.services.feedback import answers
from core.services.feedback.answers import AnswerNotFound, FeedbackView
from core.services.feedback.row_lines import row_line
from core.services.ids import new_id


@dataclass(frozen=True, kw_only=True)
class Given:
    """What somebody thinks of an answer: exactly one of `is_good`, `edited` and `worse_id`."""

    answer_id: str
    giver: str
    is_good: bool | None = None
    edited: str | None = None
    worse_id: str | None = None
    comment: str | None = None

    @property
    def kind(self) -> FeedbackKind:
        if self.worse_id is not None:
            return FeedbackKind.PREFERENCE
        return FeedbackKind.THUMB if self.edited is None else FeedbackKind.EDIT


def give(backend: Backend, project_id: str, given: Given, *, feedback_id: str | None = None) -> FeedbackView:
    """Record feedback. Raises AnswerNotFound, FeedbackFull, InvalidRequest for what makes no row.

    With a `feedback_id` chosen before (see `idempotency`), a repeated call answers what is there.
    """
    chosen = feedback_id or new_id("feedback")

    def work(session: Session) -> FeedbackView:
        rows.lock_project(session, project_id)
        known = owned.find(session, FeedbackItem, project_id, chosen)
        if known is not None:
            return answers.view_item(known)
        answer = _find(session, project_id, given.answer_id)
        other = None if given.worse_id is None else _find(session, project_id, given.worse_id)
        _check(given, answer, other)
        item = _row(project_id, chosen, given, answer, other)
        rows.delete_like(session, item)
        answers.check_room(backend, session, project_id, num_items=1, num_bytes=item.num_bytes)
        for judged in (answer, other):
            if judged is not None:
                judged.is_judged = True
        session.flush()  # holds the answers against retention before anything points at them
        session.add(item)
        session.flush()
        session.refresh(item)
        size, most = len(row_line(item, answer, other)), backend.settings.max_line_bytes
        if size > most:
            raise _refusal("/answer_id", f"makes a row of {size:,} bytes; a row may have {most:,}")
        return answers.view_item(item)

    return backend.database.write(work)


def _find(session: Session, project_id: str, answer_id: str) -> ServedAnswer:
    """Return the answer; a completion's own id means its first choice. Raises AnswerNotFound."""
    name = answer_id if "-" in answer_id else answers.answer_id_of(answer_id, 0)
    found = owned.find(session, ServedAnswer, project_id, name)
    if found is None:
        raise AnswerNotFound(
            f"The project keeps no answer {answer_id}: it was asked without `store: true`, is past its time, or was "
            "deleted."
        )
    return found


def _check(given: Given, answer: ServedAnswer, other: ServedAnswer | None) -> None:
    if given.edited is not None and given.edited == orjson.loads(answer.answer):
        raise _refusal("/edit", "is the answer as it was served; send a thumb instead")
    if other is None:
        return
    if other.prompt != answer.prompt:
        raise _refusal("/better_than", f"answers another prompt than {answer.id}")
    if other.answer == answer.answer:
        raise _refusal("/better_than", f"is the same text as {answer.id}")


def _row(
    project_id: str, feedback_id: str, given: Given, answer: ServedAnswer, other: ServedAnswer | None
) -> FeedbackItem:
    return FeedbackItem(
        id=feedback_id,
        project_id=project_id,
        answer_id=answer.id,
        other_id=None if other is None else other.id,
        kind=given.kind,
        is_good=given.is_good,
        edited=given.edited,
        comment=given.comment,
        giver=given.giver,
        num_bytes=len(f"{given.edited or ''}{given.comment or ''}".encode()),
        created_at=database_now(),
    )


def _refusal(pointer: str, detail: str) -> InvalidRequest:
    return InvalidRequest(f"{pointer}: {detail}", errors=[FieldError(pointer, detail)])
