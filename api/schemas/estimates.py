"""Schemas of estimates: what a job would take, and what it took."""

from datetime import datetime

from pydantic import Field

from api.schemas.base import Answer


class Interval(Answer):
    """Bounds of a time."""

    low: float = Field(description="Seconds at least.")
    high: float = Field(description="Seconds at most; never more than twice `low`.")


class StartInterval(Answer):
    """Bounds of the time until a job starts."""

    low: float = Field(description="Seconds at least.")
    high: float = Field(description="Seconds at most.")


class WorkerEstimate(Answer):
    """What the job would take on the workers of one class: those that are alive."""

    device_class: str = Field(description="The device, and on a CPU its model and threads.")
    num_workers: int = Field(description="Workers of the class that are alive.")
    seconds: Interval | None = Field(description="From its start to the published policy; null where not measured.")
    stage_seconds: dict[str, float] = Field(description="Expected seconds of each stage.")
    peak_memory_bytes: int | None = Field(
        description="Expected peak memory of the training process: resident on a CPU, allocated on a GPU."
    )
    memory_bytes: int | None = Field(description="Memory that such a worker has; null where it does not say.")
    fits: bool | None = Field(description="Whether the peak is within that memory; null where either is unknown.")
    num_measured_jobs: int = Field(description="Earlier jobs of the base model, alike in precision and LoRA.")
    newest_measured_at: datetime | None = Field(description="When the newest of them finished, RFC 3339, UTC.")
    reason: str | None = Field(description="Why there is no time; null where there is one.")


class DiskEstimate(Answer):
    checkpoint_bytes: int = Field(description="Checkpoints that are kept while it runs.")
    artifact_bytes: int = Field(description="The published policy with its records.")


class StoredEstimate(Answer):
    """What a job was expected to take."""

    num_train_rows: int | None = Field(
        description="Rows that fit and are trained on; null where nobody can count them."
    )
    num_validation_rows: int | None = Field(description="Rows that are held out.")
    num_set_aside: int | None = Field(description="Rows that the base model cannot use at this `max_length`.")
    is_exact: bool = Field(
        description="True: every row was looked at; false: numbers of rows and tokens are a sample's."
    )
    tokens: dict[str, int] = Field(description="Tokens that each stage computes.")
    steps: dict[str, int] = Field(description="Optimizer steps by stage.")
    reused_stages: dict[str, str] = Field(
        description="Stages that would be taken over, with the job that made each; they take next to no time."
    )
    seconds: Interval | None = Field(
        description="Time from its start to the published policy, on the most frequent class of worker; null where "
        "nothing was measured."
    )
    peak_memory_bytes: int | None = Field(description="Expected peak memory there.")
    disk: DiskEstimate | None = Field(description="Space in the object store; null where nothing was measured.")
    workers: list[WorkerEstimate] = Field(description="The same for every class of worker that is alive.")
    reason: str | None = Field(description="Why there is no time; null where there is one.")


class QueuePlace(Answer):
    position: int = Field(description="Place in the queue if it were submitted now; 1 is next.")
    starts_in_seconds: StartInterval | None = Field(description="Time until a worker is free for it.")
    reason: str | None = Field(description="Why there is no start time; null where there is one.")


class JobEstimate(StoredEstimate):
    """What a job would take if it were submitted now, from what earlier jobs took."""

    queue: QueuePlace = Field(description="Where it would stand.")


class ActualFigures(Answer):
    """What a job took."""

    seconds: float = Field(description="Seconds of all its attempts.")
    peak_memory_bytes: int | None = Field(
        description="Peak memory of the training process; null for a job of several attempts."
    )
    tokens: dict[str, int] = Field(description="Tokens that each stage computed; empty for a job of several attempts.")
    steps: dict[str, int] = Field(description="Optimizer steps by stage.")
