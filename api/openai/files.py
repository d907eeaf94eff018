"""Datasets as files, and the curve of a job as its result file."""

import csv
import io
from collections.abc import Iterable
from datetime import datetime

from api.http.root_path import public_path
from api.openai.objects import File
from core.domain.jobs.job_state import FINAL_STATUSES, Stage
from core.services.views import DatasetView, JobView, MetricPointView

RESULTS_PREFIX = "file-results-"
MIN_EXAMPLES = 10
"""OpenAI refuses files with fewer."""
MAX_SHOWN_ISSUES = 5
_STATUS = {"processing": "uploaded", "ready": "processed", "rejected": "error"}
_SPLITS = (("train", "train"), ("valid", "validation"))
_REWARDS = ("accuracies", "margins", "chosen", "rejected")
_EXTRA_COLUMNS = {
    f"{prefix}_reward_{name.replace('accuracies', 'accuracy').replace('margins', 'margin')}": (split, f"rewards/{name}")
    for name in _REWARDS
    for prefix, split in _SPLITS
} | {
    "learning_rate": ("train", "learning_rate"),
    "grad_norm": ("train", "grad_norm"),
}
_COLUMNS: dict[str, tuple[tuple[str, str], ...]] = {
    "train_loss": (("train", "loss"),),
    "train_accuracy": (("train", "rewards/accuracies"), ("train", "mean_token_accuracy")),
    "valid_loss": (("validation", "loss"),),
    "valid_mean_token_accuracy": (("validation", "mean_token_accuracy"),),
    **{name: (source,) for name, source in _EXTRA_COLUMNS.items()},
}
"""Columns behind `step` -> (split, metric), OpenAI's first; of several metrics a job has one."""
_CELLS = [(name, *source) for name, sources in _COLUMNS.items() for source in sources]


def seconds(at: datetime) -> int:
    """Return the Unix time, in whole seconds."""
    return int(at.timestamp())


def file_of_dataset(view: DatasetView) -> File:
    """Return the dataset as a file; a rejected one says why, with the first bad lines and where the report is."""
    report_url = public_path(f"/datasets/{view.id}/report")
    is_known = view.status == "ready"
    return File(
        id=view.id,
        bytes=view.num_bytes,
        created_at=seconds(view.created_at),
        filename=view.name,
        purpose="fine-tune",
        status=_STATUS[view.status],
        status_details=_status_details(view, report_url),
        expires_at=None if view.expires_at is None else seconds(view.expires_at),
        kind=view.kind if is_known else None,
        format=view.format if is_known else None,
        num_rows=view.num_rows if is_known else None,
        num_accepted=view.num_accepted if is_known else None,
        warnings=_warnings(view) if is_known else [],
        report_url=report_url,
    )


def file_of_results(job: JobView, num_bytes: int) -> File:
    return File(
        id=RESULTS_PREFIX + job.id,
        bytes=num_bytes,
        created_at=seconds(job.finished_at or job.created_at),
        filename="step_metrics.csv",
        purpose="fine-tune-results",
        status="processed",
    )


def result_files(job: JobView) -> list[str]:
    return [RESULTS_PREFIX + job.id] if job.status in FINAL_STATUSES and job.started_at else []


def job_of_results(file_id: str) -> str | None:
    """Return the id of the job whose result file this is; None for another file."""
    return file_id.removeprefix(RESULTS_PREFIX) if file_id.startswith(RESULTS_PREFIX) else None


def results_csv(stage: Stage, points: Iterable[MetricPointView]) -> bytes:
    """Return the curve of a stage, a row a step, each cell a number or empty.

    W&B's importer takes every cell for a number; a column of words would break it.
    """
    rows: dict[int, dict[str, float | None]] = {}
    for point in points:
        if point.stage is not stage:
            continue
        row = rows.setdefault(point.step, {})
        for name, split, metric in _CELLS:
            if split == point.split and metric in point.values:
                row[name] = point.values[metric]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", *_COLUMNS])
    for step in sorted(rows):
        cells = [rows[step].get(name) for name in _COLUMNS]
        writer.writerow([step, *("" if value is None else repr(value) for value in cells)])
    return text.getvalue().encode()


def _status_details(view: DatasetView, report_url: str) -> str | None:
    if view.status != "rejected":
        return None
    issues = [issue for issue in view.report.get("issues", []) if issue["severity"] == "error"][:MAX_SHOWN_ISSUES]
    lines = [f"Line {issue['line']}: {issue['detail']}" if issue["line"] else issue["detail"] for issue in issues]
    return " ".join(["Invalid file format.", *lines, f"The whole report: GET {report_url}."])


def _warnings(view: DatasetView) -> list[str]:
    found: dict[str, str] = {}
    for issue in view.report.get("issues", []):
        if issue["severity"] == "warning":
            found.setdefault(issue["code"], issue["detail"])
    counts = view.report.get("counts", {})
    told = [f"{code} ({counts.get(code, 1)}): {detail}" for code, detail in found.items()]
    if view.num_accepted < MIN_EXAMPLES:
        told.append(f"The file has {view.num_accepted} examples; OpenAI takes none with fewer than {MIN_EXAMPLES}.")
    return told
