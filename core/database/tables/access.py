from enum import StrEnum

from sqlalchemy import CheckConstraint, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from core.database.columns import enum_type
from core.database.tables.base import Base, BigInt, Digest, Id, OfProject, ShortText, Time
from core.domain.access import Scope


class StoredScope(StrEnum):
    """Scope as the column has it, whose list is fixed."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


class ApiKey(OfProject, Base):
    """A key, valid until it expires or is revoked. Only the hash of its secret is stored."""

    __tablename__ = "api_keys"
    __table_args__ = (Index(None, "project_id"),)

    name: Mapped[ShortText]
    stored_scope: Mapped[StoredScope] = mapped_column("scope", enum_type(StoredScope, "scope"))
    is_operator: Mapped[bool | None]
    """Null: made before operators were told from admins, so that an admin is both."""
    is_use: Mapped[bool | None]
    """True: of the scope `use`, which the fixed list lacks."""
    keeps_answers: Mapped[bool | None]
    """Served answers may be kept for feedback; null, as in rows of earlier versions: they may not."""
    secret_sha256: Mapped[Digest]
    """The secret has 256 random bits: nothing slower than SHA-256 is needed."""
    created_at: Mapped[Time]
    expires_at: Mapped[Time | None]
    revoked_at: Mapped[Time | None]
    last_used_at: Mapped[Time | None]

    @property
    def scope(self) -> Scope:
        if self.stored_scope is StoredScope.ADMIN and self.is_operator is not False:
            return Scope.OPERATOR
        if self.is_use:
            return Scope.USE
        return Scope(self.stored_scope.value)

    def set_scope(self, scope: Scope) -> None:
        self.is_operator = scope is Scope.OPERATOR
        self.is_use = scope is Scope.USE
        stored = {Scope.OPERATOR: StoredScope.ADMIN, Scope.USE: StoredScope.READ}
        self.stored_scope = stored.get(scope) or StoredScope(scope.value)


class ProjectLimits(Base):
    """Limits of one project; null, or no row, is unlimited."""

    __tablename__ = "project_limits"
    __table_args__ = (
        CheckConstraint(
            "max_stored_bytes >= 0 AND max_upload_bytes >= 0 AND max_queued_jobs >= 0 AND max_running_jobs >= 0 "
            "AND max_requests_per_minute > 0",
            "limits",
        ),
    )

    project_id: Mapped[Id] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    max_stored_bytes: Mapped[BigInt | None]
    max_upload_bytes: Mapped[BigInt | None]
    max_queued_jobs: Mapped[int | None]
    max_running_jobs: Mapped[int | None]
    max_requests_per_minute: Mapped[int | None]


class RateBucket(Base):
    """How far a key has used up its rate, in all API processes together."""

    __tablename__ = "rate_buckets"

    key_id: Mapped[Id] = mapped_column(primary_key=True)
    full_at: Mapped[Time]
    """When the bucket will be full again, if nothing more is taken."""
