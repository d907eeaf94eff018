from sqlalchemy import CheckConstraint, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from core.database.tables.base import Base, Digest, Id, JsonObject, LongText, ShortText, Time


class IdempotencyKey(Base):
    """A creating request, and its answer once there is one."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (
        CheckConstraint("(lease_token IS NULL) = (response_status IS NOT NULL)", "done_has_response"),
        CheckConstraint("(lease_token IS NULL) = (lease_expires_at IS NULL)", "lease_is_whole"),
        Index(None, "created_at"),
    )

    project_id: Mapped[Id] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    key: Mapped[ShortText] = mapped_column(primary_key=True)
    route: Mapped[ShortText]
    """Method and path."""
    body_sha256: Mapped[Digest]
    resource_suffix: Mapped[Id]
    """The id of what is created, fixed before: a repeated try after a crash finds it."""
    lease_token: Mapped[Id | None]
    lease_expires_at: Mapped[Time | None]
    response_status: Mapped[int | None]
    response_headers: Mapped[JsonObject]
    response_body: Mapped[LongText | None]
    created_at: Mapped[Time]


class SweeperLock(Base):
    """Lock of the active sweeper."""

    __tablename__ = "sweeper_lock"

    name: Mapped[Id] = mapped_column(primary_key=True)
    owner: Mapped[LongText]
    expires_at: Mapped[Time]


class ObjectCheck(Base):
    """State of the slow check of stored objects; one row, for all processes."""

    __tablename__ = "object_checks"

    name: Mapped[Id] = mapped_column(primary_key=True)
    cursor: Mapped[LongText]
    """Kind and id of the last thing looked at; empty before the first."""
    next_at: Mapped[Time]
    """Time before which nobody looks at the next thing."""
    began_at: Mapped[Time]
    ended_at: Mapped[Time | None]
    """End of the last whole pass; none before it."""


class LostObject(Base):
    """An object that a row names and the store does not have, or has with another size or content."""

    __tablename__ = "lost_objects"
    __table_args__ = (Index(None, "owner_id"),)

    key: Mapped[LongText] = mapped_column(primary_key=True)
    project_id: Mapped[Id]
    owner_id: Mapped[Id]
    """The job's, or the dataset's."""
    what: Mapped[ShortText]
    """`missing` or `damaged`."""
    found_at: Mapped[Time]
    seen_at: Mapped[Time]
    """Time of the last look."""


class SchemaSupport(Base):
    """Revision whose version of preftune may work with this schema, which has only been added to since."""

    __tablename__ = "schema_support"

    revision: Mapped[Id] = mapped_column(primary_key=True)
