"""What `/v1` answers, with the names and shapes of OpenAI's API; fields of ours come after theirs."""

from typing import Any, Generic, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field

Item = TypeVar("Item")


class Answer(BaseModel):
    """Strict JSON: no NaN, no infinity."""

    model_config = ConfigDict(ser_json_inf_nan="null")


class ListPage(Answer, Generic[Item]):
    """One page. `has_more` is always there: without it the clients ask for ever."""

    @classmethod
    def model_parametrized_name(cls, params: tuple[Any, ...]) -> str:
        """Return the list's name in the description of `/v1`, such as `FileList`."""
        return f"{params[0].__name__}List"

    object: Literal["list"] = "list"
    data: list[Item]
    has_more: bool
    first_id: str | None = None
    last_id: str | None = None

    @classmethod
    def of(cls, items: list[Item], *, has_more: bool) -> Self:
        ends = [getattr(item, "id", None) for item in items]
        return cls(data=items, has_more=has_more, first_id=next(iter(ends), None), last_id=next(reversed(ends), None))


class File(Answer):
    """A dataset, or the curve of a job as CSV."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    filename: str
    purpose: Literal["fine-tune", "fine-tune-results"]
    status: Literal["uploaded", "processed", "error"]
    status_details: str | None = None
    expires_at: int | None = None
    kind: str | None = Field(None, description="What the rows were recognised as.")
    format: str | None = Field(None, description="The layout that was recognised.")
    num_rows: int | None = None
    num_accepted: int | None = None
    warnings: list[str] = Field(default_factory=list, description="What the check noticed, one sentence a code.")
    report_url: str | None = Field(None, description="The whole report on the file.")


class Deleted(Answer):
    id: str
    object: str
    deleted: Literal[True] = True


class Upload(Answer):
    id: str
    object: Literal["upload"] = "upload"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: Literal["fine-tune"] = "fine-tune"
    status: Literal["pending", "completed", "cancelled", "expired"]
    file: File | None = None


class UploadPart(Answer):
    id: str
    object: Literal["upload.part"] = "upload.part"
    created_at: int
    upload_id: str


class ErrorPlace(Answer):
    param: str | None
    message: str


class Error(Answer):
    """What went wrong, as OpenAI's clients read it."""

    message: str
    type: str
    param: str | None
    code: str | None
    errors: list[ErrorPlace] = Field(default_factory=list, description="Every fault, where there are several.")
    request_id: str | None = None


class ErrorAnswer(Answer):
    error: Error


class JobError(Answer):
    code: str
    message: str
    param: str | None


class Job(Answer):
    """A training job. `spec` holds all that the shape of OpenAI has no field for."""

    id: str
    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    created_at: int
    finished_at: int | None
    model: str
    fine_tuned_model: str | None
    organization_id: str
    training_file: str
    validation_file: str | None
    status: Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"]
    error: JobError | None
    estimated_finish: int | None
    trained_tokens: int | None
    result_files: list[str]
    seed: int
    hyperparameters: dict[str, Any]
    method: dict[str, Any] | None = Field(description="Null for a method that OpenAI has not, such as `reward`.")
    integrations: list[Any] = Field(default_factory=list)
    metadata: dict[str, str]
    user_provided_suffix: str | None
    spec: dict[str, Any]
    stage: str | None
    progress: float


class Event(Answer):
    id: str
    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    created_at: int
    level: Literal["info", "warn", "error"]
    message: str
    type: Literal["message", "metrics"]
    data: dict[str, Any]


class Checkpoint(Answer):
    id: str
    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    created_at: int
    fine_tuned_model_checkpoint: str
    fine_tuning_job_id: str
    step_number: int
    metrics: dict[str, float | None]


class Model(Answer):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    shutdown_date: int | None = None
