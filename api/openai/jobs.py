"""Jobs, their events and checkpoints in the shapes of OpenAI's fine-tuning API."""

import time
from typing import Any

from api.openai.files import result_files, seconds
from api.openai.methods import served_as
from api.openai.objects import Checkpoint, Event, Job, JobError
from core.domain.jobs.failure_codes import FailureCode
from core.domain.jobs.job_state import JobStatus
from core.domain.jobs.methods import method_of
from core.domain.policy_names import policy_name
from core.services.curves.activity import Activity, Bounds
from core.services.views import CheckpointView, EventView, JobErrorView, JobView, MetricPointView

CREATED_MESSAGE = "New fine-tuned model created: "
"""Scripts split an event's message at `": "` to learn the name."""
COMPLETED_MESSAGE = "The job has successfully completed"
_EVENT_PREFIX = "ftevent-"
_ERRORS = {
    FailureCode.BAD_DATA: ("invalid_training_file", "training_file"),
    FailureCode.BAD_BASE_MODEL: (FailureCode.BAD_BASE_MODEL.value, "model"),
    FailureCode.BAD_SPEC: (FailureCode.BAD_SPEC.value, "method"),
}
"""Why a job failed -> code and param."""
_LEVELS = {"info": "info", "warning": "warn", "error": "error"}
_NAMES = {
    ("train", "loss"): "train_loss",
    ("validation", "loss"): "valid_loss",
    ("train", "mean_token_accuracy"): "train_mean_token_accuracy",
    ("validation", "mean_token_accuracy"): "valid_mean_token_accuracy",
    ("train", "rewards/accuracies"): "train_reward_accuracy",
    ("validation", "rewards/accuracies"): "valid_reward_accuracy",
    ("train", "rewards/margins"): "train_reward_margin",
    ("validation", "rewards/margins"): "valid_reward_margin",
}
_CHECKPOINT_METRICS = {
    "loss": ("valid_loss", "full_valid_loss"),
    "mean_token_accuracy": ("valid_mean_token_accuracy", "full_valid_mean_token_accuracy"),
    "rewards/accuracies": ("valid_reward_accuracy", "reward_accuracy"),
    "rewards/margins": ("valid_reward_margin", "reward_margin"),
}


def name_of_policy(project_id: str, job: JobView, *, step: int | None = None) -> str:
    return policy_name(job.base_model_name, project_id, job.name, job.id, step=step)


def show_job(project_id: str, job: JobView) -> Job:
    spec = job.spec
    eta = job.progress.eta_seconds
    finish = None if eta is None or job.started_at is None else int(time.time() + eta)
    served = served_as(spec)
    hyperparameters = {} if served is None else served.shown(spec, job.requested)
    is_policy = method_of(spec).publishes_policy
    return Job(
        id=job.id,
        created_at=seconds(job.created_at),
        finished_at=seconds(job.finished_at) if job.finished_at else None,
        model=str(spec["base_model"]),
        fine_tuned_model=name_of_policy(project_id, job) if job.artifact and is_policy else None,
        organization_id=project_id,
        training_file=str(spec["dataset_id"]),
        validation_file=spec["validation_dataset_id"],
        status=job.status.value,
        error=_error(job.error) if job.error else None,
        estimated_finish=finish,
        trained_tokens=job.trained_tokens,
        result_files=result_files(job),
        seed=spec["seed"],
        hyperparameters=hyperparameters if served is not None and served.type == "supervised" else {},
        method=None if served is None else {"type": served.type, served.type: {"hyperparameters": hyperparameters}},
        integrations=_integrations(spec.get("tracking")),
        metadata=job.metadata,
        user_provided_suffix=job.name,
        spec=spec,
        stage=job.stage.value if job.stage else None,
        progress=job.progress.fraction,
    )


def _error(error: JobErrorView) -> JobError:
    """Return why the job failed, under OpenAI's code where it has one, and which part of the request that is about."""
    code, param = _ERRORS.get(error.code, (error.code.value, None))
    return JobError(code=code, message=error.detail or error.title, param=param)


def _integrations(tracking: dict[str, Any] | None) -> list[dict[str, Any]]:
    if tracking is None or tracking["project"] is None:
        return []
    run = {"project": tracking["project"], "name": tracking["run_name"], "entity": None, "tags": tracking["tags"]}
    return [{"type": "wandb", "wandb": run}]


def show_event(project_id: str, job: JobView, entry: Activity) -> list[Event]:
    """Return the entry as events, the newest first: what succeeded is told in OpenAI's own two sentences."""
    if isinstance(entry.what, MetricPointView):
        return [_metrics_event(job, entry, entry.what)]
    event = entry.what
    if event.kind != JobStatus.SUCCEEDED.value or not method_of(job.spec).publishes_policy:
        return [_message(job, entry, event, event.message)]
    name = name_of_policy(project_id, job)
    created = _message(job, entry, event, CREATED_MESSAGE + name)
    completed = _message(job, entry, event, COMPLETED_MESSAGE).model_copy(update={"id": f"{created.id}-done"})
    return [completed, created]


def bounds_of_event(job_id: str, event_id: str) -> Bounds | None:
    """Return what lies behind the event of this id; None for an id that no event of the job has."""
    head, _, numbers = event_id.removesuffix("-done").rpartition(".")
    seqs = numbers.split("-")
    if head != _EVENT_PREFIX + job_id.removeprefix("job_") or len(seqs) != 2:
        return None
    if not all(seq.isascii() and seq.isdigit() and len(seq) < 18 for seq in seqs):
        return None
    return Bounds(int(seqs[0]), int(seqs[1]))


def show_checkpoint(project_id: str, job: JobView, checkpoint: CheckpointView) -> Checkpoint:
    metrics: dict[str, float | None] = {"step": float(checkpoint.step)}
    for name, value in checkpoint.metrics.items():
        for shown in _CHECKPOINT_METRICS.get(name, ()):
            metrics[shown] = value
    return Checkpoint(
        id=checkpoint.id,
        created_at=seconds(checkpoint.created_at),
        fine_tuned_model_checkpoint=name_of_policy(project_id, job, step=checkpoint.step),
        fine_tuning_job_id=job.id,
        step_number=checkpoint.step,
        metrics=metrics,
    )


def has_shown_policy(job: JobView, checkpoint: CheckpointView) -> bool:
    method = method_of(job.spec)
    return checkpoint.has_archive and method.publishes_policy and checkpoint.stage is method.last


def _metrics_event(job: JobView, entry: Activity, point: MetricPointView) -> Event:
    total = next((stage.steps for stage in job.stages if stage.name is point.stage), 0)
    if job.progress.stage is point.stage:
        total = job.progress.total_steps or total
    values = {_NAMES[point.split, name]: value for name, value in point.values.items() if (point.split, name) in _NAMES}
    word = "training" if point.split == "train" else "validation"
    loss = point.values.get("loss")
    message = f"Step {point.step}/{max(total, point.step)}: {word} loss={'' if loss is None else f'{loss:.4g}'}"
    if point.stage is not method_of(job.spec).last:
        message += f" ({point.stage.value})"
    data: dict[str, Any] = {"step": point.step, "total_steps": max(total, point.step), "stage": point.stage.value}
    return Event(
        id=_event_id(job, entry),
        created_at=seconds(point.at),
        level="info",
        message=message,
        type="metrics",
        data=data | values,
    )


def _message(job: JobView, entry: Activity, event: EventView, message: str) -> Event:
    return Event(
        id=_event_id(job, entry),
        created_at=seconds(event.at),
        level=_LEVELS[event.level],
        message=message,
        type="message",
        data={"kind": event.kind, **event.data},
    )


def _event_id(job: JobView, entry: Activity) -> str:
    return f"{_EVENT_PREFIX}{job.id.removeprefix('job_')}.{entry.rest.event_seq}-{entry.rest.metric_seq}"
