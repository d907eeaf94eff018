from sqlalchemy import CheckConstraint, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from core.database.tables.base import Base, BigInt, Id, JsonObject, LongText, ShortText, Time


class GangMember(Base):
    """A worker in the gang of a job: it waits for the others, or is a node of the running attempt."""

    __tablename__ = "gang_members"
    __table_args__ = (
        CheckConstraint("(attempt IS NULL) = (node IS NULL)", "node_of_attempt"),
        CheckConstraint("(attempt IS NULL) = (claim_token IS NULL)", "token_of_attempt"),
        Index(None, "job_id"),
    )

    id: Mapped[Id] = mapped_column(primary_key=True)
    """Random, of the worker's process: so a worker is in one gang at most."""
    job_id: Mapped[Id] = mapped_column(ForeignKey("jobs.id"))
    project_id: Mapped[Id]
    worker: Mapped[LongText]
    host: Mapped[LongText]
    device: Mapped[ShortText]
    """All nodes of an attempt have the same."""
    address: Mapped[LongText]
    """Address at which the other nodes reach it."""
    joined_at: Mapped[Time]
    pulse_at: Mapped[Time]
    pulse_seq: Mapped[BigInt] = mapped_column(default=0)
    """Number of the newest pulse of the attempt."""
    attempt: Mapped[int | None]
    """None: it waits."""
    node: Mapped[int | None]
    """Its number in the attempt; node 0 leads."""
    claim_token: Mapped[Id | None]
    """Token of the attempt."""
    port: Mapped[int | None]
    """Node 0: the port at which the others meet it, once it listens."""
    part: Mapped[JsonObject | None]
    """The checkpoint that node 0 collects; the files of it that another node has stored."""
    report: Mapped[JsonObject | None]
    """What another node has to say to node 0: how its part ended, or that its worker is to end."""
