"""Estimates of a job before it runs, from what earlier jobs took on workers of the classes that are alive.

Nothing is guessed: without a measured job of the same base model, precision and kind of tuning on such a worker, time
and memory are null, and `reason` says why.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from core.database.repositories import measurements
from core.database.tables.jobs import Job
from core.database.tables.measurements import JobMeasurement
from core.domain.estimates.measured import last_optimizer, settings_key, stage_settings
from core.domain.estimates.memory import MemoryModel
from core.domain.estimates.speeds import Interval, Measurement, Speeds
from core.domain.estimates.work import Work, plan_work
from core.domain.jobs.job_spec import JobSpec, resolve_staged
from core.domain.jobs.job_state import Stage
from core.domain.jobs.methods import get_method
from core.domain.variants.checks import get_variant
from core.services.backend import Backend
from core.services.datasets.previews import find_token_statistics
from core.services.estimates import queue_times, workers
from core.services.estimates.queue_times import QueuePlace
from core.services.estimates.sizes import PlannedRows, plan_rows, seen_by
from core.services.estimates.workers import WorkerClass
from core.services.views import TokenStatisticsView

MAX_LOOKED_AT = 50
"""Stage outputs of a dataset, the newest ones, that are compared with what a job needs."""
NO_WORKER = "No worker that trains is alive, so nobody can say how long one takes."
NO_TOKENIZER = "This machine lacks the base model's tokenizer, or no row of the dataset fits."
NOT_MEASURED = (
    "Not measured yet: no job of this base model, precision and kind of tuning has finished on such a worker."
)

SEVERAL_NODES = "Not estimated: what several nodes take depends on the network between them."


@dataclass(frozen=True, kw_only=True)
class ClassEstimate:
    """Estimate for the workers of one class."""

    device_class: str
    num_workers: int
    seconds: Interval | None
    stage_seconds: dict[str, float]
    peak_memory_bytes: int | None
    memory_bytes: int | None
    """Memory that such a worker has; null where it does not say."""
    fits: bool | None
    num_measured_jobs: int
    newest_measured_at: datetime | None
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class DiskEstimate:
    checkpoint_bytes: int
    """Bytes of checkpoints that are kept while it runs."""
    artifact_bytes: int


@dataclass(frozen=True, kw_only=True)
class Estimate:
    num_train_rows: int | None
    num_validation_rows: int | None
    num_set_aside: int | None
    is_exact: bool
    """Every row was looked at; else the numbers of rows and tokens come from a sample."""
    tokens: dict[str, int]
    steps: dict[str, int]
    reused_stages: dict[str, str]
    """Stages that will be taken over, with the jobs that made them; they cost next to nothing."""
    seconds: Interval | None
    peak_memory_bytes: int | None
    disk: DiskEstimate | None
    workers: list[ClassEstimate]
    queue: QueuePlace | None
    reason: str | None
    """Why there is no time; null where there is one."""


def of_spec(
    backend: Backend,
    project_id: str,
    spec: JobSpec,
    base_model: str,
    found: TokenStatisticsView | None,
    *,
    shared: Mapping[str, str] | None = None,
) -> Estimate:
    """Estimate a job that is not queued.

    Args:
        base_model: name of the base model at the root.
        found: statistics of its dataset (`seen_by`).
        shared: stages whose output there will be by then, with what makes it.
    """
    rows = plan_rows(backend, project_id, spec, found)

    def work(session: Session) -> Estimate:
        place = queue_times.place_of_next(session, project_id, spec.priority)
        return _estimate(session, project_id, (spec, base_model), rows, place, shared)

    return backend.database.read(work)


def of_job(backend: Backend, project_id: str, spec: JobSpec, base_model: str) -> dict[str, Any]:
    """Estimate a job that is queued or has just begun, as JSON for its row."""
    found = find_token_statistics(backend, project_id, spec.dataset_name, seen_by(spec))
    rows = plan_rows(backend, project_id, spec, found)
    estimate = backend.database.read(lambda session: _estimate(session, project_id, (spec, base_model), rows, None))
    return stored(estimate)


def stored(estimate: Estimate) -> dict[str, Any]:
    """Return the JSON of an estimate without what changes by the minute: the place in the queue."""
    values = asdict(estimate)
    del values["queue"]
    for item in values["workers"]:
        newest = item["newest_measured_at"]
        item["newest_measured_at"] = None if newest is None else newest.isoformat()
    return values


def _estimate(
    session: Session,
    project_id: str,
    what: tuple[JobSpec, str],
    rows: PlannedRows | None,
    place: QueuePlace | None,
    shared: Mapping[str, str] | None = None,
) -> Estimate:
    spec, base_model = what
    classes = workers.list_classes(session)
    can_share = rows is not None and spec.reuse and get_method(spec.method).has(Stage.REFERENCE)
    reused = {**(shared or {}), **_reused(session, project_id, spec)} if can_share else {}
    found = [_of_class(session, spec, base_model, rows, item, reused) for item in classes]
    first = next((item for item in found if item.estimate.seconds is not None), found[0] if found else None)
    reason = NO_TOKENIZER if rows is None else NO_WORKER if first is None else first.estimate.reason
    planned = first.work if first else None
    if rows is not None and planned is None:
        planned = plan_work(_staged(spec, rows, "cpu", "fp32"), rows.sizes)
    return Estimate(
        num_train_rows=rows.num_train if rows else None,
        num_validation_rows=rows.num_validation if rows else None,
        num_set_aside=rows.num_set_aside if rows else None,
        is_exact=bool(rows and rows.is_exact),
        tokens=planned.stage_tokens() if planned else {},
        steps=planned.steps if planned else {},
        reused_stages=reused,
        seconds=first.estimate.seconds if first else None,
        peak_memory_bytes=first.estimate.peak_memory_bytes if first else None,
        disk=first.disk if first else None,
        workers=[item.estimate for item in found],
        queue=place,
        reason=reason,
    )


@dataclass(frozen=True, kw_only=True)
class _Found:
    estimate: ClassEstimate
    work: Work | None
    disk: DiskEstimate | None


def _of_class(
    session: Session,
    spec: JobSpec,
    base_model: str,
    rows: PlannedRows | None,
    worker: WorkerClass,
    reused: dict[str, str],
) -> _Found:
    alike = _alike(spec, measurements.list_measurements(session, base_model, worker.device_class))
    if rows is None or not alike or spec.nodes > 1:
        reason = NO_TOKENIZER if rows is None else SEVERAL_NODES if spec.nodes > 1 else NOT_MEASURED
        return _Found(estimate=_unknown(worker, reason), work=None, disk=None)
    device = "cpu" if worker.device_class.startswith("CPU") else "cuda:0"
    staged = _staged(spec, rows, device, alike[0].values["precision"])
    planned = plan_work(staged, rows.sizes)
    work = planned.without(reused)
    speeds = Speeds.fit([Measurement.from_values(row.values["times"]) for row in alike])
    stages = speeds.stage_seconds(work)
    model = MemoryModel.fit([row.values for row in alike])
    peak = model.peak_bytes(work, last_optimizer(staged.model_dump())) if model else None
    estimate = ClassEstimate(
        device_class=worker.device_class,
        num_workers=worker.num_workers,
        seconds=speeds.interval(work),
        stage_seconds={stage: round(seconds, 1) for stage, seconds in stages.items()},
        peak_memory_bytes=peak,
        memory_bytes=worker.memory_bytes,
        fits=None if peak is None or worker.memory_bytes is None else peak <= worker.memory_bytes,
        num_measured_jobs=len(alike),
        newest_measured_at=alike[0].created_at,
        reason=None,
    )
    return _Found(estimate=estimate, work=planned, disk=_disk(staged, planned, alike[0].values))


def _unknown(worker: WorkerClass, reason: str) -> ClassEstimate:
    return ClassEstimate(
        device_class=worker.device_class,
        num_workers=worker.num_workers,
        seconds=None,
        stage_seconds={},
        peak_memory_bytes=None,
        memory_bytes=worker.memory_bytes,
        fits=None,
        num_measured_jobs=0,
        newest_measured_at=None,
        reason=reason,
    )


def _alike(spec: JobSpec, rows: Sequence[JobMeasurement]) -> list[JobMeasurement]:
    """Return the measurements that can speak for the job, the newest first."""
    same_size = [row for row in rows if row.values.get("num_parameters") == spec.num_parameters]
    precision: str = spec.precision
    if precision == "auto":
        precision = next((row.values["precision"] for row in same_size if row.values["was_auto"]), "")
    key = settings_key(spec.model_dump(), precision)
    return [row for row in same_size if row.settings == key]


def _staged(spec: JobSpec, rows: PlannedRows, device: str, precision: Any) -> JobSpec:
    sft = rows.sizes.sft or rows.sizes.train.first
    return resolve_staged(
        spec,
        num_sft_rows=max(1, round(sft.rows)),
        num_train_pairs=max(1, rows.num_train),
        device=device,
        fast_precision=precision,
    )


def _disk(spec: JobSpec, work: Work, measured: dict[str, Any]) -> DiskEstimate | None:
    """Return the disk space at the end of training: states of the newest two checkpoints, policies, the artifact."""
    stored_bytes = measured["stored"]
    state, policy, artifact = (stored_bytes[name] for name in ("state_bytes", "policy_bytes", "artifact_bytes"))
    if state is None or artifact is None:
        return None
    written = sum(work.checkpoints.values())
    states, policies = min(written, 2), min(written, spec.keep_checkpoints + 1)
    return DiskEstimate(checkpoint_bytes=states * state + policies * (policy or 0), artifact_bytes=artifact)


def _reused(session: Session, project_id: str, spec: JobSpec) -> dict[str, str]:
    """Return the stages whose output an earlier job with equal settings has left, with that job."""
    found: dict[str, str] = {}
    for job, stage in measurements.list_stage_makers(session, project_id, spec.dataset_name, MAX_LOOKED_AT):
        if stage not in found and _is_alike(spec, job, stage):
            found[stage] = job.id
    return found


def _is_alike(spec: JobSpec, job: Job, stage: str) -> bool:
    """Whether the job's output of a stage is that of a spec, which may have an `auto` left."""
    theirs = JobSpec.model_validate(job.spec)
    if spec.precision not in ("auto", theirs.precision):
        return False
    if stage == "reference" and not get_variant(spec.variant).needs_reference:
        return False
    ours = resolve_staged(
        spec, num_sft_rows=1, num_train_pairs=1, device="cpu", fast_precision="fp32"
    )  # only for settings that later versions have added
    left_open = {"warmup_steps"} if spec.sft != "skip" and spec.sft.warmup_steps == "auto" else set()
    return stage_settings(ours.model_dump(), stage, left_open) == stage_settings(theirs.model_dump(), stage, left_open)
