"""Choice of a sweep's best member, by a held-out metric of the published policies."""

from collections.abc import Sequence

from core.database.tables.jobs import Job
from core.domain.jobs.job_state import JobStatus
from core.domain.training.metric_names import METRICS

_RESULTS = {
    "loss": "loss",
    "rewards/accuracies": "reward_accuracy",
    "rewards/margins": "reward_margin",
    "mean_token_accuracy": "token_accuracy",
}
"""Names of validation metrics among a job's results."""


def value_of(job: Job, metric: str) -> float | None:
    """Return the metric of the job's policy on all held-out rows; None before it is there."""
    if job.status is not JobStatus.SUCCEEDED:
        return None
    held_out = (job.results or {}).get("held_out") or {}
    figure = held_out.get(_RESULTS[metric]) or {}
    value = figure.get("value")
    return None if value is None else float(value)


def best_of(members: Sequence[tuple[str, Job]], metric: str) -> str | None:
    """Return the id of the best member's job; of equal ones the first, None without any value."""
    sign = -1.0 if METRICS[metric].better == "lower" else 1.0
    found = [(sign * value, -place, job_id) for place, (job_id, job) in enumerate(members)
             if (value := value_of(job, metric)) is not None]  # fmt: skip
    return max(found)[2] if found else None
