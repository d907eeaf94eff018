"""Schemas of `/jobs`: changes and answers; the request is `core.domain.jobs.job_spec.JobRequest`."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from api.schemas.base import Answer, Id
from api.schemas.datasets import DatasetWarning, TokenStatistics
from api.schemas.estimates import ActualFigures, JobEstimate, StoredEstimate
from core.domain.jobs.failure_codes import FailureCode
from core.domain.jobs.job_spec import Metadata, Name, Priority
from core.domain.jobs.job_state import Desired, JobStatus, Stage
from core.domain.jobs.whole_numbers import Nodes

STAGE_STATUS = "`pending`, `started`, `finished`, `reused` (from an earlier job) or `skipped`."


class JobPatch(BaseModel):
    """Fields that can be changed: `nodes` while the job is queued or paused, the others always.

    Fields left out stay; null means the default.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    name: Name | None = Field(None, description="A name to recognise it by; null removes it.")
    metadata: Metadata | None = Field(None, description="Replaces all of it; null empties it.")
    priority: Priority | None = Field(None, description="Higher runs first; null is 0.")
    nodes: Nodes | None = Field(None, description="Workers that train it together from the next attempt on; null is 1.")

    def changes(self) -> dict[str, Any]:
        """Return the fields that were sent, with the default in place of null."""
        values: dict[str, Any] = {"name": self.name, "metadata": self.metadata or {}, "priority": self.priority or 0}
        return {
            name: value
            for name, value in (values | {"nodes": self.nodes or 1}).items()
            if name in self.model_fields_set
        }


class Progress(Answer):
    stage: Stage | None = Field(description="The stage that runs; null before the first.")
    step: int = Field(description="Optimizer steps done in this stage (batches for `reference` and `evaluation`).")
    total_steps: int = Field(description="Steps of this stage; 0 until known.")
    fraction: float = Field(description="Of the whole job, 0 to 1.")
    eta_seconds: float | None = Field(description="Estimated seconds to the end; null when not running or unknown.")
    tokens_per_second: float | None = Field(description="Trained tokens a second; null when not running or unknown.")


class JobStage(Answer):
    name: Stage = Field(description="Stages run in the order listed.")
    status: str = Field(description=STAGE_STATUS)
    started_at: datetime | None = Field(description="RFC 3339, UTC; null before.")
    finished_at: datetime | None = Field(description="RFC 3339, UTC; null before.")
    steps: int = Field(description="Steps done.")
    reused_from: str | None = Field(description="The job whose output was reused; else null.")


class JobError(Answer):
    code: FailureCode = Field(description="Why the job failed, for programs.")
    title: str = Field(description="The code in words.")
    detail: str = Field(description="What happened in this job, and what to do.")


class ArtifactSummary(Answer):
    num_files: int = Field(description="Files of the published policy.")
    num_bytes: int = Field(description="Their bytes together.")
    weights_dtype: str | None = Field(
        default=None, description="Type of the published weights, `float32` or `bfloat16`; null for the first minute."
    )
    merged_in_bf16: bool = Field(
        default=False,
        description="An earlier version merged the adapter in bf16, which lost a part of its update; "
        "`POST /jobs/{id}/republish` merges it again.",
    )


class Figure(Answer):
    """A mean over held-out rows with its 95 % interval."""

    value: float | None = Field(description="Null where it is not finite.")
    low: float | None = Field(description="Lower end; null with a single row.")
    high: float | None = Field(description="Upper end; null with a single row.")


class CalibrationBin(Answer):
    """Held-out pairs of about the same confidence."""

    confidence: float = Field(description="Mean of sigmoid(|margin|): the probability given to the preferred response.")
    accuracy: float = Field(description="Share whose preferred response is the chosen one; ties count half.")
    num_pairs: int = Field(description="Its pairs.")


class Calibration(Answer):
    """Whether a reward model's probabilities of preferences are those found on held-out pairs."""

    error: float | None = Field(description="Mean distance of accuracy from confidence, weighted by pairs.")
    bins: list[CalibrationBin] = Field(description="By rising confidence, of a width of 0.05; those that have pairs.")


class HeldOutFigures(Answer):
    """The published policy on all held-out rows. What the job's method does not measure is null."""

    num_rows: int = Field(description="Held-out rows.")
    num_tokens: int | None = Field(default=None, description="Supervised: their response tokens.")
    loss: Figure = Field(
        description="The variant's loss; supervised: mean negative log-likelihood a token, in nats; reward: mean "
        "-log sigmoid(margin), with the centring term."
    )
    reward_accuracy: Figure | None = Field(
        default=None,
        description="Preference, reward: share whose chosen response gets the higher reward; Wilson's interval.",
    )
    reward_margin: Figure | None = Field(
        default=None, description="Preference, reward: reward of chosen over rejected responses."
    )
    calibration: Calibration | None = Field(default=None, description="Reward: calibration of its probabilities.")
    perplexity: Figure | None = Field(default=None, description="Supervised: exp(loss).")
    token_accuracy: Figure | None = Field(
        default=None, description="Supervised: share of response tokens that are the likeliest ones where they stand."
    )


class Improvement(Answer):
    """Improvement of the published policy over the base model, compared row by row."""

    loss: Figure = Field(description="Nats a token by which the loss is lower.")
    token_accuracy: Figure = Field(description="By which the share is higher.")


class TrainingFigures(Answer):
    """Means over the rows of an epoch, each as the row was when it was trained on: no result of the policy."""

    epoch: int = Field(description="Which epoch, from 1: the last whole one.")
    is_whole_epoch: bool = Field(description="False: training ended in epoch 1; these are its rows until then.")
    num_rows: int = Field(description="Rows of it.")
    loss: float | None = Field(default=None, description="As on held-out rows.")
    reward_accuracy: float | None = Field(default=None, description="As on held-out rows.")
    reward_margin: float | None = Field(default=None, description="As on held-out rows.")
    token_accuracy: float | None = Field(default=None, description="As on held-out rows.")


class Results(Answer):
    """What the job ended with."""

    step: int = Field(description="Step of the last training stage whose policy is published.")
    held_out: HeldOutFigures | None = Field(description="Null without held-out rows.")
    base_model: HeldOutFigures | None = Field(
        default=None, description="Supervised: the model that training began with, on the same rows."
    )
    better_than_base_model: Improvement | None = Field(default=None, description="Supervised: the improvement over it.")
    training: TrainingFigures | None = Field(description="Null where no step was taken.")


class JobState(Answer):
    """Where a job is: `data` of a stream's event `status`, and a part of every job."""

    id: Id
    status: JobStatus = Field(description="Where the job is; `succeeded`, `failed` and `cancelled` are final.")
    desired: Desired = Field(description="What was requested last; a running job follows at its next step.")
    stage: Stage | None = Field(description="The stage that runs or ran last; null before the first.")
    attempt: int = Field(description="Number of attempts.")
    progress: Progress = Field(description="How far it is.")
    queue_position: int | None = Field(
        description="1 is next; null when not queued. Within a priority, the project with the fewest running jobs goes "
        "first, then the older job."
    )
    stages: list[JobStage] = Field(description="The stages of the job's method, in order.")
    error: JobError | None = Field(description="Why it failed; null unless it has.")
    artifact: ArtifactSummary | None = Field(description="What was published; null before.")
    started_at: datetime | None = Field(description="First start, RFC 3339, UTC; null before.")
    finished_at: datetime | None = Field(description="RFC 3339, UTC; null before.")


class Job(JobState):
    """One training job."""

    name: str | None = Field(description="A name to recognise it by.")
    spec: dict[str, Any] = Field(description="The settings with numbers in place of `auto`, as far as known.")
    requested: dict[str, Any] = Field(description="The settings as sent.")
    created_at: datetime = Field(description="RFC 3339, UTC.")
    results: Results | None = Field(
        default=None, description="Figures of the published policy; null before, and for jobs of version 0.1.0."
    )
    trained_tokens: int | None = Field(
        default=None,
        description="Tokens that the model computed in all optimizer steps; null before the job has published, and for "
        "jobs that ended under an earlier version.",
    )
    estimate: StoredEstimate | None = Field(
        default=None,
        description="What was expected before it ran; null until that is made, some seconds after it is queued.",
    )
    actual: ActualFigures | None = Field(default=None, description="What it took; null until it has succeeded.")
    metadata: dict[str, str] = Field(description="Strings of yours.")
    priority: int = Field(description="Higher runs first.")
    source_job_id: str | None = Field(description="The job that this one retries or runs again; else null.")


class JobPreview(Answer):
    """The job that would result if it were submitted now."""

    spec: dict[str, Any] = Field(description="As `spec` of a job that is queued.")
    rows: TokenStatistics | None = Field(
        description="What the base model sees of the dataset's rows, as GET /datasets/{id}/tokens says it; null where "
        "this machine does not have the base model's tokenizer, or cannot use it."
    )
    warnings: list[DatasetWarning] = Field(description="What to know of the datasets that the job would train on.")
    estimate: JobEstimate = Field(description="What the job would take.")
