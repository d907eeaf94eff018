from enum import StrEnum

from sqlalchemy import CheckConstraint, Enum, Index
from sqlalchemy.orm import Mapped, mapped_column

from core.database.columns import enum_type
from core.database.tables.base import Base, BigInt, Digest, Id, JsonObject, LongText, OfProject, ShortText, Time
from core.domain.dataset_rows import DatasetKind


class DatasetStatus(StrEnum):
    PROCESSING = "processing"
    """Stored, being checked by the process that holds the lease."""
    READY = "ready"
    REJECTED = "rejected"
    """Refused after an asynchronous upload; only the report is kept."""


_FIRST_KINDS = (DatasetKind.PREFERENCE, DatasetKind.DEMONSTRATION, DatasetKind.UNPAIRED)
_STORED_KIND = Enum(
    *(kind.value for kind in _FIRST_KINDS), name="kind", native_enum=False, create_constraint=True, length=32
)


class Dataset(OfProject, Base):
    __tablename__ = "datasets"
    __table_args__ = (
        CheckConstraint("(status = 'processing') = (lease_owner IS NOT NULL)", "lease_while_processing"),
        CheckConstraint("(lease_owner IS NULL) = (lease_expires_at IS NULL)", "lease_is_whole"),
        CheckConstraint("num_rows = num_accepted + num_rejected + num_set_aside", "rows_add_up"),
        CheckConstraint("status <> 'ready' OR num_accepted > 0", "ready_has_rows"),
        Index(None, "project_id", "id"),
        Index(None, "status", "lease_expires_at"),
        Index(None, "expires_at"),
        Index(None, "root_id", "version"),
    )

    name: Mapped[ShortText]
    status: Mapped[DatasetStatus] = mapped_column(enum_type(DatasetStatus, "status"))
    stored_kind: Mapped[str] = mapped_column("kind", _STORED_KIND)
    """Kind as the first release knows them: it reads responses as demonstrations."""
    holds_responses: Mapped[bool | None]
    format: Mapped[ShortText]
    """Detected format; `auto` while processing."""
    filename: Mapped[ShortText]
    """Name of the upload: data, never a path."""
    sha256: Mapped[Digest]
    """Digest of the bytes as uploaded."""
    num_bytes: Mapped[BigInt]
    num_rows: Mapped[BigInt] = mapped_column(default=0)
    num_accepted: Mapped[BigInt] = mapped_column(default=0)
    num_rejected: Mapped[BigInt] = mapped_column(default=0)
    num_set_aside: Mapped[BigInt] = mapped_column(default=0)
    rows_sha256: Mapped[Digest | None]
    """Digest of the normalised rows in the store; none for datasets of the first release."""
    rows_bytes: Mapped[BigInt | None]
    issues_sha256: Mapped[Digest | None]
    report: Mapped[JsonObject]
    options: Mapped[JsonObject]
    """How to check it: an interrupted check is repeated with the same."""
    user_metadata: Mapped[JsonObject] = mapped_column("metadata")
    num_tries: Mapped[int] = mapped_column(default=0)
    lease_owner: Mapped[LongText | None]
    lease_expires_at: Mapped[Time | None]
    reader_version: Mapped[int | None]
    """Version of the reader that made the rows or compared them; none: the first release's."""
    rereading: Mapped[JsonObject | None]
    """What a newer reading makes of the file, where that is not the stored rows."""
    expires_at: Mapped[Time | None]
    """Time from which on no new job may read it; it goes once no live job does. None: it stays."""
    root_id: Mapped[Id | None]
    """First version of the dataset that this is a version of; none: it is one itself."""
    version: Mapped[int | None]
    """Number of this version, from 2; none: the first."""
    last_version: Mapped[int | None]
    """Largest number that was given out, at the first version, so that none is given out twice."""
    made_from: Mapped[JsonObject | None]
    """What the service made the file from; none: it was uploaded."""
    created_at: Mapped[Time]

    @property
    def kind(self) -> DatasetKind:
        return DatasetKind.RESPONSES if self.holds_responses else DatasetKind(self.stored_kind)

    @kind.setter
    def kind(self, kind: DatasetKind) -> None:
        self.holds_responses = kind is DatasetKind.RESPONSES
        self.stored_kind = (DatasetKind.DEMONSTRATION if self.holds_responses else kind).value

    @property
    def number(self) -> int:
        return self.version or 1

    @property
    def has_versions(self) -> bool:
        """Whether the dataset has, or had, a second version."""
        return self.root_id is not None or self.last_version is not None

    @property
    def version_name(self) -> str:
        """Name that means this version for ever."""
        return f"{self.root_id or self.id}@{self.number}"

    @property
    def public_id(self) -> str:
        """Id as people see it: the first version has the dataset's own."""
        return self.id if self.root_id is None else self.version_name
