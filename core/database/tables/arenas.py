"""Tables of arenas: pairs that people compare, leases of who looks at one, and votes."""

from sqlalchemy import ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from core.database.columns import enum_type
from core.database.tables.base import Base, BigInt, Id, JsonObject, LongText, OfProject, ShortText, Time
from core.domain.arenas.arenas import PairState, Verdict


class Arena(OfProject, Base):
    __tablename__ = "arenas"
    __table_args__ = (Index(None, "project_id", "id"),)

    name: Mapped[ShortText | None]
    user_metadata: Mapped[JsonObject] = mapped_column("metadata")
    requested: Mapped[JsonObject]
    """Request as sent, with seed and sampling."""
    first_model: Mapped[ShortText]
    """Name of the model that answers first; `chosen` where a file's rows are judged."""
    second_model: Mapped[ShortText]
    source_name: Mapped[ShortText | None]
    """Version of the dataset that prompts or rows were drawn from."""
    votes_per_pair: Mapped[int]
    num_pairs: Mapped[int]
    num_bytes: Mapped[BigInt]
    """Size of prompts and answers as JSON, for the quota."""
    is_open: Mapped[bool]
    created_at: Mapped[Time]


class ArenaPair(Base):
    __tablename__ = "arena_pairs"
    __table_args__ = (Index(None, "arena_id", "position"),)

    id: Mapped[Id] = mapped_column(primary_key=True)
    arena_id: Mapped[Id] = mapped_column(ForeignKey("arenas.id"))
    position: Mapped[int]
    state: Mapped[PairState] = mapped_column(enum_type(PairState, "state", is_checked=False))
    content: Mapped[JsonObject]
    """`prompt`; `first` and `second` once the answers are there; `context` of the row; `error`."""
    num_votes: Mapped[int]


class ArenaLease(Base):
    """A pair that a voter looks at, so that nobody else gets it meanwhile."""

    __tablename__ = "arena_leases"
    __table_args__ = (Index(None, "arena_id"),)

    pair_id: Mapped[Id] = mapped_column(ForeignKey("arena_pairs.id"), primary_key=True)
    voter: Mapped[ShortText] = mapped_column(primary_key=True)
    arena_id: Mapped[Id]
    expires_at: Mapped[Time]


class ArenaVote(Base):
    __tablename__ = "arena_votes"
    __table_args__ = (UniqueConstraint("pair_id", "voter"), Index(None, "arena_id", "id"))

    id: Mapped[Id] = mapped_column(primary_key=True)
    arena_id: Mapped[Id]
    pair_id: Mapped[Id] = mapped_column(ForeignKey("arena_pairs.id"))
    voter: Mapped[ShortText]
    verdict: Mapped[Verdict] = mapped_column(enum_type(Verdict, "verdict", is_checked=False))
    is_swapped: Mapped[bool]
    """The second answer stood on the left."""
    comment: Mapped[LongText | None]
    created_at: Mapped[Time]


class GrownDataset(Base):
    """Dataset whose versions are cut from what a source has gathered: an arena, or feedback of one kind."""

    __tablename__ = "grown_datasets"

    project_id: Mapped[Id] = mapped_column(primary_key=True)
    source: Mapped[ShortText] = mapped_column(primary_key=True)
    dataset_id: Mapped[Id]
