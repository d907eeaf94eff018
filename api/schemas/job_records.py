"""Schemas of a job's records: metric points, events, samples, checkpoints."""

from datetime import datetime
from typing import Any, Literal

from pydantic import Field, RootModel

from api.schemas.base import Answer, Id
from api.schemas.jobs import JobState
from core.domain.jobs.job_state import JobStatus, Stage

Split = Literal["train", "validation"]
EventLevel = Literal["info", "warning", "error"]


class MetricPoint(Answer):
    seq: int = Field(description="Grows in the order in which points became visible.")
    stage: Stage = Field(description="`sft` or `dpo`.")
    split: Split = Field(description="Which rows it was measured on.")
    step: int = Field(description="Optimizer step, from 1; step 0 is before the first update.")
    epoch: float = Field(description="Passes over the training rows so far.")
    at: datetime = Field(description="RFC 3339, UTC.")
    values: dict[str, float | None] = Field(
        description="By name, such as `loss`, `rewards/chosen`, `rewards/margins`; null where not finite."
    )


class MetricsPage(Answer):
    """Points in the order of `seq`. One point per (stage, split, step) for ever."""

    job_id: Id
    status: JobStatus = Field(description="Of the job, at the time of this page.")
    points: list[MetricPoint] = Field(description="The points of this page.")
    last_seq: int = Field(description="Send it as `after` for what comes next.")
    has_more: bool = Field(description="Are there more points already?")
    reset: bool = Field(description="Points were removed: discard all; this page starts at the first point.")


class Event(Answer):
    seq: int = Field(description="Counts up from 1 within the job.")
    at: datetime = Field(description="RFC 3339, UTC.")
    level: EventLevel = Field(description="How much it matters.")
    kind: str = Field(description="For programs; docs/guide/events.md lists them.")
    message: str = Field(description="One sentence for the user.")
    data: dict[str, Any] = Field(description="What the message is about, by name.")


class Events(Answer):
    """Page of events, oldest first."""

    data: list[Event] = Field(description="The events of this page.")
    last_seq: int = Field(description="Send it as `after` for what comes next.")
    has_more: bool = Field(description="Are there more events already?")


class Sample(Answer):
    prompt: str = Field(description="One of the job's sample prompts.")
    reference: str = Field(description="The answer of the frozen reference, greedily.")
    policy: str = Field(description="The answer of the policy at this step, greedily.")
    step: int = Field(description="Optimizer step of the last training stage.")


class Samples(Answer):
    data: list[Sample] = Field(description="One for each sample prompt.")


class Checkpoint(Answer):
    id: Id
    stage: Stage = Field(description="`sft` or `dpo`.")
    step: int = Field(description="Optimizer step within the stage.")
    num_bytes: int = Field(description="Bytes of its policy's files together (of its state, where there is no policy).")
    is_best: bool = Field(description="Is it the best of those kept, by the job's `keep_best`?")
    is_resumable: bool = Field(description="Whether the state is kept from which training can be resumed.")
    archive_url: str | None = Field(description="The policy at this step as a tar stream; null where it is not kept.")
    metrics: dict[str, float | None] = Field(description="Validation values at this step; empty if not evaluated.")
    created_at: datetime = Field(description="RFC 3339, UTC.")


class Checkpoints(Answer):
    """Kept checkpoints, the latest step first."""

    data: list[Checkpoint] = Field(description="All that are kept.")
    next_cursor: str | None = Field(None, description="Always null: all are on one page.")


class StreamMetrics(RootModel[list[MetricPoint]]):
    """Event `metric`: new points."""


class StreamReset(Answer):
    """Event `reset`: points were removed; discard all, they come again from the first."""

    job_id: Id


class StreamEnd(Answer):
    """Event `end`: the job has ended, nothing follows."""

    job_id: Id
    status: JobStatus | Literal["deleted"] = Field(description="Final status of the job, or `deleted`.")


class StreamData(RootModel[StreamMetrics | JobState | Event | StreamReset | StreamEnd]):
    """`data` of a server-sent event, by its name: `metric`, `status`, `event`, `reset`, `end`."""
