"""Tables of sweeps and their members, which are ordinary jobs."""

from sqlalchemy import ForeignKey, Index, false, text
from sqlalchemy.orm import Mapped, mapped_column

from core.database.columns import enum_type
from core.database.tables.base import Base, Id, JsonObject, LongText, OfProject, ShortText, Time
from core.domain.sweeps import SweepStatus

_RUNNING = text("finished_at IS NULL")


class Sweep(OfProject, Base):
    __tablename__ = "sweeps"
    __table_args__ = (
        Index(None, "project_id", "id"),
        Index("ix_sweeps_open", "id", sqlite_where=_RUNNING, postgresql_where=_RUNNING),
    )

    name: Mapped[ShortText | None]
    user_metadata: Mapped[JsonObject] = mapped_column("metadata")
    requested: Mapped[JsonObject]
    """Request as sent."""
    status: Mapped[SweepStatus] = mapped_column(enum_type(SweepStatus, "status", is_checked=False))
    metric: Mapped[ShortText]
    max_parallel: Mapped[int]
    halving: Mapped[JsonObject | None]
    """`eta` and `rungs`, the shares of a member's steps at which members are compared; null: they are not."""
    best_job_id: Mapped[Id | None]
    created_at: Mapped[Time]
    finished_at: Mapped[Time | None]


class SweepMember(Base):
    """One member: its job's id is chosen with it, so that submitting it twice makes one job."""

    __tablename__ = "sweep_members"
    __table_args__ = (Index(None, "job_id"),)

    sweep_id: Mapped[Id] = mapped_column(ForeignKey("sweeps.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """Place among the members, from 1."""
    project_id: Mapped[Id]
    job_id: Mapped[Id]
    overrides: Mapped[JsonObject]
    is_submitted: Mapped[bool] = mapped_column(default=False)
    is_held: Mapped[bool] = mapped_column(default=False)
    """The sweep has paused its job, and is to resume it."""
    error_detail: Mapped[LongText | None]
    """Why its job could not be submitted."""
    rung: Mapped[int] = mapped_column(default=0, server_default="0")
    """The rung that it trains to, from 0; behind the last one: to its end."""
    is_dropped: Mapped[bool] = mapped_column(default=False, server_default=false())
    """It does not go on from that rung."""
    rung_values: Mapped[JsonObject | None]
    """Rung -> `step` and `value`, null where there was none, of those that were decided."""


class SweepEvent(Base):
    """Append-only event of a sweep, numbered under the lock on the sweep's row."""

    __tablename__ = "sweep_events"

    sweep_id: Mapped[Id] = mapped_column(ForeignKey("sweeps.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    project_id: Mapped[Id]
    at: Mapped[Time]
    level: Mapped[ShortText]
    kind: Mapped[ShortText]
    message: Mapped[LongText]
    data: Mapped[JsonObject]
