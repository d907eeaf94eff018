from sqlalchemy import CheckConstraint, ForeignKey, Index, false, text
from sqlalchemy.orm import Mapped, mapped_column

from core.database.columns import enum_type
from core.database.tables.base import Base, BigInt, Id, JsonObject, LongText, Number, OfProject, ShortText, Time
from core.domain.jobs.failure_codes import FailureCode
from core.domain.jobs.job_state import AttemptOutcome, Desired, JobStatus, Stage

_QUEUED = text("status = 'queued'")
_RUNNING = text("status = 'running'")


class Job(OfProject, Base):
    """One training job; only `core.database.repositories.transitions` changes `status`."""

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint("(status IN ('succeeded', 'failed', 'cancelled')) = (finished_at IS NOT NULL)", "finished"),
        CheckConstraint("(status = 'running') = (lease_owner IS NOT NULL)", "lease_while_running"),
        CheckConstraint("(lease_owner IS NULL) = (lease_expires_at IS NULL)", "lease_is_whole"),
        CheckConstraint("(lease_owner IS NULL) = (claim_token IS NULL)", "lease_has_token"),
        CheckConstraint("(status = 'failed') = (error_code IS NOT NULL)", "failed_has_code"),
        CheckConstraint("(error_code IS NULL) = (error_detail IS NULL)", "code_has_detail"),
        CheckConstraint("(attempt = 0) = (started_at IS NULL)", "started"),
        CheckConstraint("status <> 'queued' OR desired = 'run'", "queued_is_wanted"),
        CheckConstraint("status <> 'paused' OR desired = 'pause'", "paused_is_wanted"),
        CheckConstraint("status <> 'cancelled' OR desired = 'cancel'", "cancelled_is_wanted"),
        CheckConstraint("attempt >= 0 AND crash_count >= 0", "counters"),
        Index(None, "project_id", "id"),
        Index(None, "dataset_id"),
        Index("ix_jobs_queue", text("priority DESC"), "id", sqlite_where=_QUEUED, postgresql_where=_QUEUED),
        Index(
            "ix_jobs_turns",
            "project_id",
            text("priority DESC"),
            "id",
            sqlite_where=_QUEUED,
            postgresql_where=_QUEUED,
        ),
        Index("ix_jobs_leases", "lease_expires_at", sqlite_where=_RUNNING, postgresql_where=_RUNNING),
        Index("ix_jobs_running", "project_id", sqlite_where=_RUNNING, postgresql_where=_RUNNING),
    )

    name: Mapped[ShortText | None]
    user_metadata: Mapped[JsonObject] = mapped_column("metadata")
    priority: Mapped[int]
    nodes: Mapped[int] = mapped_column(default=1, server_default="1")
    """Workers that train it together."""
    requested: Mapped[JsonObject]
    """Request as sent."""
    spec: Mapped[JsonObject]
    """Resolved as far as known: on acceptance, and again when staged."""
    dataset_id: Mapped[Id]
    """Perhaps deleted since, if the job is finished."""
    sft_dataset_id: Mapped[Id | None]
    validation_dataset_id: Mapped[Id | None]
    base_model_facts: Mapped[JsonObject]
    """Facts of the base model at the root: `name`, `architecture`, `context_length`, `source`, `revision`."""
    base_job_id: Mapped[Id | None]
    """The job whose policy is the base model, when it is one's."""
    source_job_id: Mapped[Id | None]
    """The job that this one retries."""

    status: Mapped[JobStatus] = mapped_column(enum_type(JobStatus, "status"))
    desired: Mapped[Desired] = mapped_column(enum_type(Desired, "desired"))
    saves_on_cancel: Mapped[bool] = mapped_column(default=False)
    error_code: Mapped[FailureCode | None] = mapped_column(enum_type(FailureCode, "error_code", is_checked=False))
    error_detail: Mapped[LongText | None]
    created_at: Mapped[Time]
    started_at: Mapped[Time | None]
    """First claim."""
    finished_at: Mapped[Time | None]

    attempt: Mapped[int] = mapped_column(default=0)
    """Only grows: the fencing token."""
    attempt_started_at: Mapped[Time | None]
    lease_owner: Mapped[LongText | None]
    lease_expires_at: Mapped[Time | None]
    claim_token: Mapped[Id | None]
    """Token of one `claim`: a repeated one finds what it took. The other half of the fencing token: a database that
    went back to an earlier state may give out an attempt number again, but never a token."""
    heartbeat_seq: Mapped[BigInt] = mapped_column(default=0)
    crash_count: Mapped[int] = mapped_column(default=0)
    """Crashes since the newest checkpoint."""
    runtime_seconds: Mapped[Number] = mapped_column(default=0.0)
    """Sum over all ended attempts."""
    next_run_at: Mapped[Time]
    wake_sent_at: Mapped[Time | None]
    num_unfilled: Mapped[int] = mapped_column(default=0, server_default="0")
    """Times in a row that workers had waited for each other in vain, before the newest attempt."""

    pause_at_share: Mapped[Number | None]
    """Share of the last stage's steps at whose next evaluation it pauses, for its sweep to compare it with others."""
    is_at_rung: Mapped[bool] = mapped_column(default=False, server_default=false())
    """It has paused there, and its sweep has not let it go on."""

    stage: Mapped[Stage | None] = mapped_column(enum_type(Stage, "stage"))
    step: Mapped[BigInt] = mapped_column(default=0)
    total_steps: Mapped[BigInt] = mapped_column(default=0)
    tokens_per_second: Mapped[Number | None]

    results: Mapped[JsonObject | None]
    """Figures of the published policy: `step`, `held_out`, `training`; null before, and for jobs of version 0.1.0."""

    trained_tokens: Mapped[BigInt | None]
    """Sum over the optimizer steps of a finished job; null before, and for jobs that ended under an earlier version."""

    estimate: Mapped[JsonObject | None]
    """Expectation before the training (`core.services.estimates`); null before it was made, and of earlier versions."""

    last_metric_seq: Mapped[BigInt] = mapped_column(default=0)
    rewind_seq: Mapped[BigInt] = mapped_column(default=0)
    """Readers of metric points whose cursor is not beyond this one hold points that were taken back."""
    last_event_seq: Mapped[BigInt] = mapped_column(default=0)


class Attempt(Base):
    __tablename__ = "attempts"
    __table_args__ = (
        CheckConstraint("(ended_at IS NULL) = (outcome IS NULL)", "ended_has_outcome"),
        Index(None, "project_id"),
    )

    job_id: Mapped[Id] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    project_id: Mapped[Id]
    worker: Mapped[LongText]
    host: Mapped[LongText]
    device: Mapped[ShortText]
    started_at: Mapped[Time]
    ended_at: Mapped[Time | None]
    outcome: Mapped[AttemptOutcome | None] = mapped_column(enum_type(AttemptOutcome, "outcome"))
    is_begun: Mapped[bool] = mapped_column(default=False)
    """The resume point is chosen, and later points are taken back."""
    resume_checkpoint_id: Mapped[Id | None]
    resume_stage: Mapped[Stage | None] = mapped_column(enum_type(Stage, "resume_stage"))
    resume_step: Mapped[BigInt | None]
    num_checkpoints: Mapped[int] = mapped_column(default=0)
    num_divergent_points: Mapped[int] = mapped_column(default=0)
    claim_token: Mapped[Id | None]
    """None for attempts that a worker of the first release began."""
    ended_stage: Mapped[Stage | None] = mapped_column(enum_type(Stage, "ended_stage", is_checked=False))
    ended_step: Mapped[BigInt | None]
    """How far it had come when it ended without finishing the job."""


class JobStage(Base):
    """State of one stage of one job; stages not reached have no row."""

    __tablename__ = "job_stages"
    __table_args__ = (
        CheckConstraint("(status = 'started') = (finished_at IS NULL)", "finished"),
        CheckConstraint("status IN ('started', 'finished', 'reused', 'skipped')", "status"),
    )

    job_id: Mapped[Id] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    stage: Mapped[Stage] = mapped_column(enum_type(Stage, "stage"), primary_key=True)
    project_id: Mapped[Id]
    status: Mapped[ShortText]
    started_at: Mapped[Time]
    finished_at: Mapped[Time | None]
    steps: Mapped[BigInt] = mapped_column(default=0)
    reused_from: Mapped[Id | None]
