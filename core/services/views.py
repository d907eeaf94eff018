"""Return values of services: plain values with the names of the HTTP contract."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from core.domain.exports import EXPORT_FOLDER
from core.domain.jobs.failure_codes import FailureCode
from core.domain.jobs.job_state import Desired, JobStatus, Stage
from core.domain.jobs.stored_files import StoredFile

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Item = TypeVar("Item")
View = TypeVar("View", bound="DataclassInstance")


def from_row(view: type[View], row: object, **others: Any) -> View:
    """Make a view whose fields are the row's attributes of the same names, but for the others.

    What a type checker does not see here, `tests/unit/services/test_views.py` compares: names, and types.
    """
    names = [field.name for field in fields(view) if field.name not in others]
    return view(**{name: getattr(row, name) for name in names}, **others)


@dataclass(frozen=True, kw_only=True)
class Page(Generic[Item]):
    data: list[Item]
    next_cursor: str | None


@dataclass(frozen=True, kw_only=True)
class Content:
    """Bytes to be streamed. Iterating may raise StoreUnavailable."""

    num_bytes: int
    sha256: str
    filename: str
    chunks: Iterator[bytes]


@dataclass(frozen=True, kw_only=True)
class DatasetWarning:
    """What to know before a job trains on a dataset."""

    dataset_id: str
    code: str
    """One of the report's codes, or one of `core.services.data_warnings`."""
    detail: str
    num_found: int
    """How many times."""


@dataclass(frozen=True, kw_only=True)
class DatasetView:
    id: str
    name: str
    status: str
    kind: str
    format: str
    sha256: str
    num_bytes: int
    num_rows: int
    num_accepted: int
    num_rejected: int
    num_set_aside: int
    report: dict[str, Any]
    metadata: dict[str, str]
    rereading: dict[str, Any] | None
    """Where a newer version reads the file otherwise than the stored rows are: how."""
    warnings: list[DatasetWarning]
    """What to know before a job trains on it; the report has the rest."""
    expires_at: datetime | None
    """When it is deleted, unless a live job still reads it then."""
    version: int
    made_from: dict[str, Any] | None
    """What the service made it from; None: it was uploaded."""
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class TokenStatisticsView:
    base_model: str
    max_length: int
    is_exact: bool
    num_rows: int
    """Looked at."""
    num_over_max_length: int
    context_length: int | None
    """Context length of the base model."""
    num_over_context: int
    num_equal_once_rendered: int
    num_unencodable: int
    problems: list[dict[str, Any]]
    """Why rows are not encodable: `detail`, `num_rows` and the first `line`, the most frequent first."""
    share_over_max_length: float
    lengths: dict[str, Any]
    kept_rows: list[tuple[int, int, int]]
    """Tokens of prompt, first and second response of the rows looked at that a job keeps."""
    kept_texts: list[tuple[int, int, int]]
    """Hashes of the tokens of the same texts."""
    num_good: int
    """Those of them that SFT learns from: of unpaired rows the ones marked good, else all."""


@dataclass(frozen=True, kw_only=True)
class UploadPartView:
    number: int
    num_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class UploadView:
    id: str
    status: str
    name: str | None
    filename: str | None
    num_bytes: int
    sha256: str | None
    num_received_bytes: int
    part_bytes: int
    parts: list[UploadPartView]
    dataset_id: str | None
    metadata: dict[str, str]
    expires_at: datetime
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class StageView:
    name: Stage
    status: str
    """`pending`, `started`, `finished`, `reused` or `skipped`"""
    started_at: datetime | None
    finished_at: datetime | None
    steps: int
    reused_from: str | None


@dataclass(frozen=True, kw_only=True)
class ProgressView:
    stage: Stage | None
    step: int
    total_steps: int
    fraction: float
    """Fraction of the whole job, 0 to 1."""
    eta_seconds: float | None
    tokens_per_second: float | None


@dataclass(frozen=True, kw_only=True)
class JobErrorView:
    code: FailureCode
    title: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class ArtifactSummary:
    num_files: int
    num_bytes: int
    weights_dtype: str | None
    merged_in_bf16: bool


@dataclass(frozen=True, kw_only=True)
class JobView:
    id: str
    name: str | None
    status: JobStatus
    desired: Desired
    stage: Stage | None
    spec: dict[str, Any]
    requested: dict[str, Any]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    attempt: int
    progress: ProgressView
    queue_position: int | None
    stages: list[StageView]
    error: JobErrorView | None
    artifact: ArtifactSummary | None
    results: dict[str, Any] | None
    trained_tokens: int | None
    """Sum over the optimizer steps; null until the job has succeeded."""
    estimate: dict[str, Any] | None
    """Expectation before it ran (`core.services.estimates`)."""
    actual: dict[str, Any] | None
    """What it took: `seconds`, `peak_memory_bytes`, `tokens`, `steps`; null before it has succeeded."""
    metadata: dict[str, str]
    priority: int
    source_job_id: str | None
    """The job that this one retries."""
    base_model_name: str
    """Name of the base model at the root, also where the job started from a policy."""


class JobChange(NamedTuple):
    """Answer to cancel, pause and resume, with whether anything changed."""

    job: JobView
    is_changed: bool


@dataclass(frozen=True, kw_only=True)
class JobHead:
    """State of a job for a poller of many: cheap to read."""

    id: str
    status: JobStatus
    desired: Desired
    stage: Stage | None
    step: int
    total_steps: int
    last_metric_seq: int
    rewind_seq: int
    last_event_seq: int


@dataclass(frozen=True, kw_only=True)
class MetricPointView:
    seq: int
    stage: Stage
    split: str
    step: int
    epoch: float
    at: datetime
    values: dict[str, float | None]


@dataclass(frozen=True, kw_only=True)
class MetricsPage:
    job_id: str
    status: JobStatus
    points: list[MetricPointView]
    last_seq: int
    has_more: bool
    reset: bool


@dataclass(frozen=True, kw_only=True)
class EventView:
    seq: int
    at: datetime
    level: str
    kind: str
    message: str
    data: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class SampleView:
    prompt: str
    reference: str
    policy: str
    step: int


@dataclass(frozen=True, kw_only=True)
class CheckpointView:
    id: str
    stage: Stage
    step: int
    num_bytes: int
    is_best: bool
    is_resumable: bool
    has_archive: bool
    metrics: dict[str, float | None]
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class ArtifactView:
    job_id: str
    prefix: str
    manifest_sha256: str
    files: list[StoredFile]
    """Those that were published, and exports."""
    created_at: datetime

    @property
    def published(self) -> list[StoredFile]:
        return [file for file in self.files if not file.path.startswith(f"{EXPORT_FOLDER}/")]


@dataclass(frozen=True, kw_only=True)
class BaseModelView:
    name: str
    kind: str
    """`base` or `tuned`"""
    architecture: str
    num_parameters: int
    context_length: int | None
    source: str | None
    revision: str | None
    job_id: str | None
    job_name: str | None = None
    published_at: datetime | None = None
