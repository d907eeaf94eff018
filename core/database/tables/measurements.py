"""Tables behind estimates: what finished jobs took, and the workers that are alive."""

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from core.database.tables.base import Base, BigInt, Id, JsonObject, LongText, ShortText, Time


class JobMeasurement(Base):
    """Times and memory of one job; it outlives the job, and the newest of each kind are kept."""

    __tablename__ = "job_measurements"
    __table_args__ = (Index(None, "base_model", "device_class", "created_at"),)

    job_id: Mapped[Id] = mapped_column(primary_key=True)
    base_model: Mapped[ShortText]
    """Name of the base model at the root."""
    device_class: Mapped[ShortText]
    """Kind of worker: jobs on workers of one class take alike."""
    settings: Mapped[ShortText]
    """Settings that speed and memory depend on most (`core.domain.estimates.measured.settings_key`)."""
    created_at: Mapped[Time]
    values: Mapped[JsonObject]


class WorkerPresence(Base):
    """A worker or API process, for as long as it says that it is there."""

    __tablename__ = "workers"

    name: Mapped[ShortText] = mapped_column(primary_key=True)
    host: Mapped[LongText]
    device_class: Mapped[ShortText]
    trains: Mapped[bool]
    """False: it does light requests only."""
    memory_bytes: Mapped[BigInt | None]
    """Memory that a training may take on its device; none where that is not known."""
    facts: Mapped[JsonObject | None]
    """`kind` (`worker` or `api`), `version`, `num_devices`, `lanes`, `takes_nodes`, `clock_offset_seconds`, `disks`."""
    started_at: Mapped[Time]
    seen_at: Mapped[Time]
