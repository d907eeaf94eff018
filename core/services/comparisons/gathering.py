"""What is known of the jobs that are compared: evaluations, held-out margins, settings, data and code."""

import json
import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from core.database.repositories import datasets as dataset_rows
from core.database.repositories import jobs as job_rows
from core.database.repositories import metrics as metric_rows
from core.database.repositories.metrics import ValidationRow
from core.database.tables.jobs import Job
from core.domain.jobs.job_state import JobStatus, Stage
from core.domain.jobs.methods import method_of
from core.domain.jobs.stored_files import StoredFile
from core.domain.training import metric_names as names
from core.domain.training.artifact_files import PAIRS_FILE
from core.domain.training.comparisons import PairKey, Point
from core.services.backend import Backend
from core.services.jobs import artifacts, jobs, pair_reports
from core.services.jobs.pair_reports import TooManyPairs
from core.services.jobs.stored_files import read_file

MAX_EVALUATIONS = 200
"""Evaluations of a job that are shown, the newest ones."""
MAX_PAIRS = 20_000
"""Held-out pairs of a job with more are not compared one by one."""
RECORD_FILE = "job.json"
MAX_RECORD_BYTES = 4 * 1024**2


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    step: int
    kl: float | None
    accuracy: float | None
    margin: float | None
    loss: float | None


@dataclass(frozen=True, kw_only=True)
class ComparedRun:
    """One job with all that is compared."""

    job_id: str
    name: str | None
    status: JobStatus
    spec: dict[str, Any]
    held_out: dict[str, Any] | None
    published_step: int | None
    evaluations: list[Evaluation]
    margins: dict[PairKey, float]
    """Reward margins of its published policy on held-out pairs."""
    why_not_paired: str | None
    """Why there are no margins; None where there are."""
    datasets: dict[str, str]
    """Role -> name, id and digest of a dataset."""
    versions: dict[str, str]
    """Library -> version of the trainer; empty where nothing is published."""

    @property
    def label(self) -> str:
        name = f"{self.name or self.job_id}"
        return name if self.spec.get("beta") is None else f"{name} (beta {self.spec['beta']:g})"

    @property
    def pairs_dataset_id(self) -> str:
        return str(self.spec.get("validation_dataset_id") or self.spec["dataset_id"])

    @property
    def held_out_rows(self) -> tuple[Any, ...]:
        """Return what tells which pair stands on a line: equal for jobs whose held-out lines mean the same."""
        if self.spec.get("validation_dataset_id"):
            return (self.spec["validation_dataset_id"],)
        return self.spec["dataset_id"], *sorted(self.spec.get("swap_lines") or [])

    @property
    def accuracy(self) -> float | None:
        """Return the reward accuracy of the published policy."""
        figure = (self.held_out or {}).get("reward_accuracy") or {}
        value = figure.get("value")
        return None if value is None else float(value)

    @property
    def kl(self) -> float | None:
        """Return the divergence of the published policy."""
        return self.kl_at(self.published_step)

    def kl_at(self, step: int | None) -> float | None:
        """Return the divergence at the newest evaluation at that step."""
        return next((item.kl for item in reversed(self.evaluations) if item.step == step), None)

    @property
    def last_stage(self) -> Stage:
        """Return the stage whose policy it publishes."""
        return method_of(self.spec).last

    @property
    def plotted(self) -> list[Point]:
        return [
            Point(job_id=self.job_id, step=item.step, kl=item.kl, accuracy=item.accuracy)
            for item in self.evaluations
            if item.kl is not None and item.accuracy is not None
        ]


@dataclass(frozen=True, kw_only=True)
class _Read:
    """What one transaction reads of all jobs."""

    jobs: list[Job]
    evaluations: dict[str, list[Evaluation]]
    datasets: dict[str, str]
    """What is shown of each dataset that is there, by id."""
    reports: dict[str, StoredFile]
    records: dict[str, StoredFile]


def gather(backend: Backend, project_id: str, job_ids: Sequence[str]) -> list[ComparedRun]:
    """Return the jobs in order. Raises JobNotFound, PairsBusy, Unavailable."""
    found = backend.database.read(lambda session: _read(session, project_id, job_ids))
    return [_run(backend, found, job) for job in found.jobs]


def _read(session: Session, project_id: str, job_ids: Sequence[str]) -> _Read:
    """Read with a fixed number of queries, however many jobs there are."""
    known = job_rows.find_jobs(session, project_id, job_ids)
    chosen = [known.get(job_id) or jobs.find(session, project_id, job_id) for job_id in job_ids]
    stages = {job.id: method_of(job.spec).last for job in chosen}
    evaluations: dict[str, list[Evaluation]] = {job.id: [] for job in chosen}
    for row in metric_rows.list_validation(session, job_ids):
        if row.stage is stages[row.job_id]:
            evaluations[row.job_id].append(_evaluation(row))
    return _Read(
        jobs=chosen,
        evaluations={job_id: items[-MAX_EVALUATIONS:] for job_id, items in evaluations.items()},
        datasets=_datasets(session, project_id, {name for job in chosen for name in _roles(job).values()}),
        reports=artifacts.find_files(session, job_ids, PAIRS_FILE),
        records=artifacts.find_files(session, job_ids, RECORD_FILE),
    )


def _evaluation(row: ValidationRow) -> Evaluation:
    values = row.values
    return Evaluation(
        step=row.step,
        kl=values.get(names.SAMPLED_KL),
        accuracy=values.get(names.REWARD_ACCURACIES),
        margin=values.get(names.REWARD_MARGINS),
        loss=values.get(names.LOSS),
    )


def _roles(job: Job) -> dict[str, str]:
    """Return the datasets that a job names, by their role."""
    roles = {
        "dataset_id": job.dataset_id,
        "sft/dataset_id": job.sft_dataset_id,
        "validation_dataset_id": job.validation_dataset_id,
    }
    return {role: found for role, found in roles.items() if found}


def _datasets(session: Session, project_id: str, dataset_ids: Collection[str]) -> dict[str, str]:
    found = {dataset_id: dataset_rows.find_dataset(session, project_id, dataset_id) for dataset_id in dataset_ids}
    return {
        dataset_id: f"{dataset_id} (deleted)"
        if row is None
        else f"{row.name or dataset_id}, {dataset_id}, sha256 {row.sha256}"
        for dataset_id, row in found.items()
    }


def _run(backend: Backend, found: _Read, job: Job) -> ComparedRun:
    margins, why = _margins(backend, job, found.reports.get(job.id))
    results = job.results or {}
    return ComparedRun(
        job_id=job.id,
        name=job.name,
        status=job.status,
        spec=job.spec,
        held_out=results.get("held_out"),
        published_step=results.get("step"),
        evaluations=found.evaluations[job.id],
        margins=margins,
        why_not_paired=why,
        datasets={role: found.datasets[name] for role, name in _roles(job).items()},
        versions=_versions(backend, job, found.records.get(job.id)),
    )


def _margins(backend: Backend, job: Job, report: StoredFile | None) -> tuple[dict[PairKey, float], str | None]:
    """Return the margins of held-out pairs, or why there are none."""
    if not method_of(job.spec).has_rewards:
        return {}, "A supervised job compares no responses."
    if report is None:
        return {}, "The job has published no policy with a report on its pairs."
    try:
        lines, values = pair_reports.held_out_margins(backend, job.id, report)
    except TooManyPairs:
        return {}, "The job's report on pairs is too long to be compared here."
    if len(lines) > MAX_PAIRS:
        return {}, f"The job holds out {len(lines):,} pairs; at most {MAX_PAIRS:,} are compared one by one."
    found: dict[PairKey, float] = {}
    num_of_line: Counter[float] = Counter()
    for line, value in zip(lines, values, strict=True):
        if math.isfinite(value):
            num_of_line[line] += 1
            found[int(line), num_of_line[line]] = value
    return found, None if found else "The job holds no pairs out."


def _versions(backend: Backend, job: Job, file: StoredFile | None) -> dict[str, str]:
    """Return the versions that the job's policy was trained with, as its artifact says."""
    if file is None or file.num_bytes > MAX_RECORD_BYTES:
        return {}
    try:
        record = json.loads(b"".join(read_file(backend, job.id, file)))
    except ValueError:
        return {}
    versions = record.get("versions") or {}
    return {**{str(name): str(value) for name, value in versions.items()}, "device": str(record.get("device", ""))}
