"""Tables of judgements: pairs with their verdicts, and answers of a language model by what it was asked."""

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from core.database.columns import enum_type
from core.database.tables.base import Base, BigInt, Digest, Id, JsonObject, LongText, Number, ShortText, Time
from core.database.tables.requests import Holdable, leased_rules
from core.domain.judging.judgements import PairVerdict


class Judgement(Holdable, Base):
    __tablename__ = "judgements"
    __table_args__ = (*leased_rules(), Index(None, "project_id", "id"))

    name: Mapped[ShortText | None]
    user_metadata: Mapped[JsonObject] = mapped_column("metadata")
    requested: Mapped[JsonObject]
    """Request as sent."""
    first_model: Mapped[ShortText]
    """Model that the win rate is about; `chosen` where a file's pairs are judged."""
    second_model: Mapped[ShortText]
    source_name: Mapped[ShortText]
    """Version of the dataset that is judged."""
    num_pairs: Mapped[int]
    num_judged: Mapped[int]
    """Pairs that are done, those without a verdict among them."""
    num_failed: Mapped[int]
    """Pairs that have no verdict."""
    num_requests: Mapped[int]
    """Requests that a language model got, and those that are set aside for the pairs under way."""
    num_bytes: Mapped[BigInt]
    """Size of the pairs, for the quota."""
    tally: Mapped[JsonObject]
    """Faults by kind, answers out of the cache, and what is told of both orders."""
    results: Mapped[JsonObject]
    """Win rate and agreement, once succeeded."""
    dataset_id: Mapped[Id]
    """Id that the dataset of preferences gets, chosen with the judgement."""
    has_dataset: Mapped[bool]
    is_cancelled: Mapped[bool]


class JudgedPair(Base):
    __tablename__ = "judged_pairs"

    judgement_id: Mapped[Id] = mapped_column(ForeignKey("judgements.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """Place among the pairs, from 1."""
    prompt: Mapped[int]
    """Place of the prompt among the different ones."""
    content: Mapped[LongText]
    """JSON: `prompt`, `first`, `second`, and where the row has them `tools`, `documents`, `line`."""
    key: Mapped[Digest]
    """Digest of the pair, by which other judgements find it."""
    is_done: Mapped[bool]
    verdict: Mapped[PairVerdict | None] = mapped_column(enum_type(PairVerdict, "verdict", is_checked=False))
    confidence: Mapped[Number | None]
    detail: Mapped[JsonObject]
    """Reason, scores or the fault."""


class JudgeAnswer(Base):
    """Answer of a language model, which is not asked the same twice."""

    __tablename__ = "judge_answers"
    __table_args__ = (Index(None, "created_at"),)

    project_id: Mapped[Id] = mapped_column(primary_key=True)
    key: Mapped[Digest] = mapped_column(primary_key=True)
    answer: Mapped[JsonObject]
    created_at: Mapped[Time]
