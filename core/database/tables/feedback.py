"""Tables of answers that were kept because their caller asked for it, and of what people think of them."""

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from core.database.columns import enum_type
from core.database.tables.base import Base, BigInt, Id, LongText, OfProject, Owned, ShortText, Time
from core.domain.arenas.feedback import FeedbackKind


class ServedAnswer(OfProject, Base):
    __tablename__ = "served_answers"
    __table_args__ = (Index(None, "project_id", "id"), Index(None, "created_at"))

    key_id: Mapped[ShortText | None]
    model: Mapped[ShortText]
    prompt: Mapped[LongText]
    """Text or messages, as JSON: a text of PostgreSQL, and its JSON, hold no NUL, which a model may write."""
    answer: Mapped[LongText]
    """Text of the answer, as JSON."""
    num_bytes: Mapped[BigInt]
    is_judged: Mapped[bool]
    """Feedback is given on it, so that it stays until it is deleted."""
    created_at: Mapped[Time]


class FeedbackItem(Owned, Base):
    """A thumb, an edit or a preference, the latest of its kind for its answer, or for its two."""

    __tablename__ = "feedback_items"
    __table_args__ = (Index(None, "project_id", "id"), Index(None, "answer_id"), Index(None, "other_id"))

    answer_id: Mapped[Id] = mapped_column(ForeignKey("served_answers.id"))
    """The better one of two."""
    other_id: Mapped[Id | None] = mapped_column(ForeignKey("served_answers.id"))
    """The worse one of two."""
    kind: Mapped[FeedbackKind] = mapped_column(enum_type(FeedbackKind, "kind", is_checked=False))
    is_good: Mapped[bool | None]
    """What a thumb says."""
    edited: Mapped[LongText | None]
    comment: Mapped[LongText | None]
    giver: Mapped[ShortText]
    num_bytes: Mapped[BigInt]
    created_at: Mapped[Time]
