"""Tables of uploads in parts, until they are datasets."""

from enum import StrEnum

from sqlalchemy import CheckConstraint, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from core.database.columns import enum_type
from core.database.tables.base import Base, BigInt, Digest, Id, JsonObject, OfProject, ShortText, Time


class UploadStatus(StrEnum):
    OPEN = "open"
    """Takes parts."""
    COMPLETED = "completed"
    """Became a dataset; its parts are gone, or going."""


class Upload(OfProject, Base):
    __tablename__ = "uploads"
    __table_args__ = (
        CheckConstraint("status = 'open' OR dataset_id IS NOT NULL", "completed_has_data_set"),
        Index(None, "project_id", "status"),
        Index(None, "expires_at"),
    )

    status: Mapped[UploadStatus] = mapped_column(enum_type(UploadStatus, "status"))
    name: Mapped[ShortText | None]
    filename: Mapped[ShortText | None]
    """Name that the client gives: data, never a path."""
    num_bytes: Mapped[BigInt]
    """Size of the whole file, as announced."""
    sha256: Mapped[Digest | None]
    """Digest of the whole file, where the client has announced it."""
    options: Mapped[JsonObject]
    """Options of the future dataset: kind, format, columns, values, ignore, ties, on_error."""
    user_metadata: Mapped[JsonObject] = mapped_column("metadata")
    dataset_seconds: Mapped[BigInt | None]
    """How long the dataset stays once it is made; none: until it is deleted."""
    dataset_id: Mapped[Id | None]
    """Chosen by the first attempt to complete: another attempt finds what that one made."""
    assembler: Mapped[Id | None]
    """Token of the process that puts the parts together; they stay as they are until `assembling_until`."""
    assembling_until: Mapped[Time | None]
    expires_at: Mapped[Time]
    """Moved on by every part."""
    created_at: Mapped[Time]


class UploadPart(Base):
    __tablename__ = "upload_parts"

    upload_id: Mapped[Id] = mapped_column(ForeignKey("uploads.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    """Number of the part, from 1; the file is its parts in this order."""
    num_bytes: Mapped[BigInt]
    sha256: Mapped[Digest]


class Arrival(OfProject, Base):
    """Quota reserved for a body that is being received; ends with it, or when its process is silent for too long."""

    __tablename__ = "arrivals"
    __table_args__ = (Index(None, "project_id"),)

    num_bytes: Mapped[BigInt]
    expires_at: Mapped[Time]
