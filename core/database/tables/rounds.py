"""Tables of rounds and of their steps, each of which is done by a child with an id chosen beforehand."""

from sqlalchemy import ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from core.database.columns import enum_type
from core.database.tables.base import Base, Id, JsonObject, LongText, OfProject, ShortText, Time
from core.domain.judging.rounds import RoundsStatus, RoundsStopReason, RoundStage, RoundStepStatus

_OPEN = text("finished_at IS NULL")


class Rounds(OfProject, Base):
    __tablename__ = "rounds"
    __table_args__ = (
        Index(None, "project_id", "id"),
        Index("ix_rounds_open", "id", sqlite_where=_OPEN, postgresql_where=_OPEN),
    )

    name: Mapped[ShortText | None]
    user_metadata: Mapped[JsonObject] = mapped_column("metadata")
    requested: Mapped[JsonObject]
    """Request as sent, with the versions of its datasets named."""
    status: Mapped[RoundsStatus] = mapped_column(enum_type(RoundsStatus, "status", is_checked=False))
    num_rounds: Mapped[int]
    """Rounds at most, those of extensions among them."""
    stop_reason: Mapped[RoundsStopReason | None] = mapped_column(
        enum_type(RoundsStopReason, "stop_reason", is_checked=False)
    )
    error_detail: Mapped[LongText | None]
    """Why a stage has failed."""
    num_troubles: Mapped[int] = mapped_column(default=0, server_default="0")
    """Tries in a row that met something unexpected."""
    trouble_since: Mapped[Time | None]
    """When the first of them was."""
    created_at: Mapped[Time]
    finished_at: Mapped[Time | None]


class RoundStep(Base):
    """One stage of one round: its child has its id before it is created, so that creating it twice makes one."""

    __tablename__ = "round_steps"
    __table_args__ = (Index(None, "child_id"),)

    rounds_id: Mapped[Id] = mapped_column(ForeignKey("rounds.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """Place among the steps, from 1."""
    project_id: Mapped[Id]
    round: Mapped[int]
    """Number of the round, from 1; 0 before the first."""
    stage: Mapped[RoundStage] = mapped_column(enum_type(RoundStage, "stage", is_checked=False))
    status: Mapped[RoundStepStatus] = mapped_column(enum_type(RoundStepStatus, "status", is_checked=False))
    child_id: Mapped[Id]
    earlier: Mapped[JsonObject]
    """`ids` of children that have failed before."""
    is_held: Mapped[bool]
    """The rounds have paused its job, and are to resume it."""
    result: Mapped[JsonObject]
    """What came of it, once it has ended."""
    error_detail: Mapped[LongText | None]
    started_at: Mapped[Time | None]
    finished_at: Mapped[Time | None]
