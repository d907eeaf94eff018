"""Tables of generations: what models are to answer, and the parts that they have answered."""

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from core.database.tables.base import Base, BigInt, Digest, Id, JsonObject, LongText, ShortText, Time
from core.database.tables.requests import Holdable, leased_rules


class Generation(Holdable, Base):
    __tablename__ = "generations"
    __table_args__ = (*leased_rules(), Index(None, "project_id", "id"))

    name: Mapped[ShortText | None]
    user_metadata: Mapped[JsonObject] = mapped_column("metadata")
    requested: Mapped[JsonObject]
    """Request as sent, without prompts."""
    prompts: Mapped[LongText] = mapped_column(deferred=True)
    """JSON list of rows: `prompt`, and where they have it `tools`, `documents`, `line`."""
    source_name: Mapped[ShortText | None]
    """Version of the dataset that the prompts are from."""
    num_prompts: Mapped[int]
    num_answers: Mapped[int]
    """Answers wanted."""
    part_answers: Mapped[int]
    """Answers of a part, which stay as they were when the generation was made."""
    num_done: Mapped[int] = mapped_column(default=0)
    """Answers of the parts that are done, failed ones among them."""
    num_failed: Mapped[int] = mapped_column(default=0)
    num_tokens: Mapped[BigInt] = mapped_column(default=0)
    num_bytes: Mapped[BigInt]
    """Size of prompts and parts, for the quota."""
    failures: Mapped[JsonObject]
    """`first`: prompts that a model could not answer, the first ones."""
    dataset_id: Mapped[Id]
    """Id that the dataset of responses gets, chosen with the generation."""
    is_cancelled: Mapped[bool] = mapped_column(default=False)


class GenerationPart(Base):
    __tablename__ = "generation_parts"

    generation_id: Mapped[Id] = mapped_column(ForeignKey("generations.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    answers: Mapped[LongText]
    """JSON list, in the part's order; deleted with the part once the dataset is there."""
    sha256: Mapped[Digest]
    created_at: Mapped[Time]
