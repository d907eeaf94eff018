"""Rows that name objects of the store, and those that say which objects may go."""

from enum import StrEnum

from sqlalchemy import ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from core.database.columns import enum_type
from core.database.tables.base import Base, BigInt, Digest, Id, LongText, ShortText, Time
from core.domain.jobs.job_state import Stage
from core.domain.jobs.stored_files import StoredFile, StoredTree

_UNREAD = text("weights_dtype IS NULL")


class CheckpointStatus(StrEnum):
    COMMITTED = "committed"
    CORRUPT = "corrupt"
    """Failed verification on resume; kept as a record, its objects go."""
    DELETED = "deleted"
    """Pruned; a record only."""


class Checkpoint(Base):
    """Resumable state, and the policy of that step as users load it: each has its own retention.

    Without a committed row here, uploaded objects do not exist.
    """

    __tablename__ = "checkpoints"
    __table_args__ = (
        UniqueConstraint("job_id", "stage", "step", "attempt"),
        Index(None, "prefix"),
        Index(None, "policy_prefix"),
    )

    id: Mapped[Id] = mapped_column(primary_key=True)
    job_id: Mapped[Id] = mapped_column(ForeignKey("jobs.id"))
    project_id: Mapped[Id]
    attempt: Mapped[int]
    stage: Mapped[Stage] = mapped_column(enum_type(Stage, "stage"))
    step: Mapped[BigInt]
    status: Mapped[CheckpointStatus] = mapped_column(enum_type(CheckpointStatus, "status"))
    prefix: Mapped[LongText]
    manifest_sha256: Mapped[Digest]
    num_bytes: Mapped[BigInt]
    policy_prefix: Mapped[LongText | None]
    """Null before it is uploaded, and once it was let go of."""
    policy_manifest_sha256: Mapped[Digest | None]
    policy_num_bytes: Mapped[BigInt | None]
    created_at: Mapped[Time]

    @property
    def tree(self) -> StoredTree:
        return StoredTree(prefix=self.prefix, manifest_sha256=self.manifest_sha256)

    @property
    def policy_tree(self) -> StoredTree | None:
        if self.policy_prefix is None or self.policy_manifest_sha256 is None:
            return None
        return StoredTree(prefix=self.policy_prefix, manifest_sha256=self.policy_manifest_sha256)


class Artifact(Base):
    """The published output of a job: at most one."""

    __tablename__ = "artifacts"
    __table_args__ = (
        Index(None, "prefix"),
        Index("ix_artifacts_unread", "job_id", sqlite_where=_UNREAD, postgresql_where=_UNREAD),
    )

    job_id: Mapped[Id] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    project_id: Mapped[Id]
    attempt: Mapped[int]
    prefix: Mapped[LongText]
    manifest_sha256: Mapped[Digest]
    num_files: Mapped[int]
    num_bytes: Mapped[BigInt]
    created_at: Mapped[Time]
    weights_dtype: Mapped[ShortText | None]
    """`float32`, `bfloat16`, … or `unknown`; null until the sweeper has read it from the file."""

    @property
    def tree(self) -> StoredTree:
        return StoredTree(prefix=self.prefix, manifest_sha256=self.manifest_sha256)

    def file_row(self, file: StoredFile) -> "ArtifactFile":
        """Return the row of one of its files."""
        return ArtifactFile(
            job_id=self.job_id,
            project_id=self.project_id,
            path=file.path,
            key=file.key,
            num_bytes=file.num_bytes,
            sha256=file.sha256,
        )


class ArtifactFile(Base):
    __tablename__ = "artifact_files"

    job_id: Mapped[Id] = mapped_column(ForeignKey("artifacts.job_id"), primary_key=True)
    path: Mapped[LongText] = mapped_column(primary_key=True)
    """Inside the artifact, with `/`."""
    project_id: Mapped[Id]
    key: Mapped[LongText]
    num_bytes: Mapped[BigInt]
    sha256: Mapped[Digest]

    @property
    def file(self) -> StoredFile:
        return StoredFile(path=self.path, num_bytes=self.num_bytes, sha256=self.sha256, key=self.key)


class StageOutput(Base):
    """A finished stage's output under the digest of all its inputs."""

    __tablename__ = "stage_outputs"
    __table_args__ = (Index(None, "prefix"), Index(None, "job_id"))

    project_id: Mapped[Id] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    digest: Mapped[Digest] = mapped_column(primary_key=True)
    stage: Mapped[Stage] = mapped_column(enum_type(Stage, "stage"))
    job_id: Mapped[Id]
    """The job that made it."""
    attempt: Mapped[int]
    prefix: Mapped[LongText]
    manifest_sha256: Mapped[Digest]
    num_bytes: Mapped[BigInt]
    created_at: Mapped[Time]

    @property
    def tree(self) -> StoredTree:
        return StoredTree(prefix=self.prefix, manifest_sha256=self.manifest_sha256)


class StageBuild(Base):
    """Announcement that an attempt builds a stage output; void once the attempt is over."""

    __tablename__ = "stage_builds"

    project_id: Mapped[Id] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    digest: Mapped[Digest] = mapped_column(primary_key=True)
    job_id: Mapped[Id]
    attempt: Mapped[int]
    created_at: Mapped[Time]


class Garbage(Base):
    """Objects under a prefix that no row names any more; deleted by the sweeper, then forgotten."""

    __tablename__ = "garbage"

    prefix: Mapped[LongText] = mapped_column(primary_key=True)
    project_id: Mapped[Id]
    reason: Mapped[ShortText]
    created_at: Mapped[Time]
