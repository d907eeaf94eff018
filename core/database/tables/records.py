"""Tables of what running jobs record: metric points, events, samples, logs."""

from sqlalchemy import CheckConstraint, ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from core.database.columns import enum_type
from core.database.tables.base import Base, BigInt, Id, JsonObject, LongText, Number, ShortText, Time
from core.domain.jobs.job_state import JobStatus, Stage


class MetricPoint(Base):
    """One point per (job, stage, split, step) for ever; `seq` grows in the order of commits."""

    __tablename__ = "metric_points"
    __table_args__ = (
        UniqueConstraint("job_id", "seq"),
        CheckConstraint("split IN ('train', 'validation')", "split"),
    )

    job_id: Mapped[Id] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    stage: Mapped[Stage] = mapped_column(enum_type(Stage, "stage"), primary_key=True)
    split: Mapped[ShortText] = mapped_column(primary_key=True)
    step: Mapped[BigInt] = mapped_column(primary_key=True, autoincrement=False)
    project_id: Mapped[Id]
    attempt: Mapped[int]
    seq: Mapped[BigInt]
    epoch: Mapped[Number]
    at: Mapped[Time]
    values: Mapped[JsonObject]


class MetricBlock(Base):
    """Lowest and highest values of each curve within some steps, from which charts of long runs are chosen.

    The blocks of a curve are written in order, when a later step is there; a curve's points up to its newest block are
    all in blocks.
    """

    __tablename__ = "metric_blocks"
    __table_args__ = (CheckConstraint("split IN ('train', 'validation')", "split"),)

    job_id: Mapped[Id] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    stage: Mapped[Stage] = mapped_column(enum_type(Stage, "stage"), primary_key=True)
    split: Mapped[ShortText] = mapped_column(primary_key=True)
    step: Mapped[BigInt] = mapped_column(primary_key=True, autoincrement=False)
    """The last one that belongs to the block."""
    project_id: Mapped[Id]
    first_step: Mapped[BigInt]
    last_step: Mapped[BigInt]
    """Last step of its points."""
    extremes: Mapped[JsonObject]
    """Name → lowest value, its step, highest value, its step."""


class RewoundPoint(Base):
    """The values of a point taken back on resume, until the replayed step is compared with them."""

    __tablename__ = "rewound_points"

    job_id: Mapped[Id] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    stage: Mapped[Stage] = mapped_column(enum_type(Stage, "stage"), primary_key=True)
    split: Mapped[ShortText] = mapped_column(primary_key=True)
    step: Mapped[BigInt] = mapped_column(primary_key=True, autoincrement=False)
    project_id: Mapped[Id]
    attempt: Mapped[int]
    values: Mapped[JsonObject]


class JobEvent(Base):
    """Append-only event of a job, for people and for the checker of the fault tests."""

    __tablename__ = "job_events"
    __table_args__ = (
        UniqueConstraint("job_id", "token"),
        CheckConstraint("level IN ('info', 'warning', 'error')", "level"),
    )

    job_id: Mapped[Id] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    seq: Mapped[BigInt] = mapped_column(primary_key=True, autoincrement=False)
    project_id: Mapped[Id]
    at: Mapped[Time]
    level: Mapped[ShortText]
    kind: Mapped[ShortText]
    message: Mapped[LongText]
    data: Mapped[JsonObject]
    actor: Mapped[LongText]
    """`user`, `sweeper`, or the worker's name."""
    attempt: Mapped[int]
    from_status: Mapped[JobStatus | None] = mapped_column(enum_type(JobStatus, "from_status"))
    to_status: Mapped[JobStatus | None] = mapped_column(enum_type(JobStatus, "to_status"))
    token: Mapped[Id | None]
    """Token of an event that comes from a trainer: a repeated write finds it."""


class JobSample(Base):
    """Answer to one of the sample prompts, before and after training."""

    __tablename__ = "job_samples"

    job_id: Mapped[Id] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    project_id: Mapped[Id]
    step: Mapped[BigInt]
    prompt: Mapped[LongText]
    reference: Mapped[LongText]
    policy: Mapped[LongText]


class JobLogPart(Base):
    """A piece of what the trainings of a job have printed; the oldest go once the newer ones fill the limit."""

    __tablename__ = "job_log_parts"

    job_id: Mapped[Id] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    start_bytes: Mapped[BigInt] = mapped_column(primary_key=True, autoincrement=False)
    """What the job had printed before, parts that are gone included."""
    project_id: Mapped[Id]
    attempt: Mapped[int]
    last_write: Mapped[int]
    """Number, in the attempt, of the last write that is in it: a repeated one finds itself."""
    num_bytes: Mapped[int]
    """In UTF-8."""
    text: Mapped[LongText]
