"""Inputs of a job as a worker finds them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from core.database.repositories import datasets as dataset_rows
from core.database.repositories import jobs as job_rows
from core.domain.errors import Fenced
from core.domain.jobs.stored_files import StoredFile, StoredTree
from core.services.attempts.claimed_job import ClaimedJob
from core.services.base_models import starting_points
from core.services.transactions import writes
from core.storage import keys


@dataclass(frozen=True, kw_only=True)
class StoredRows:
    """Normalised rows of a dataset in the store, and their origin."""

    dataset_id: str
    key: str
    file: StoredFile | None
    """Size and sum of the rows; None for datasets of the first release, which kept none."""
    original: StoredFile
    options: dict[str, Any]
    """How the upload was checked: the rows can be made anew."""


@dataclass(frozen=True, kw_only=True)
class JobInputs:
    """Rows of a job, and its base model: a name in the models directory, or the files of a tuned policy."""

    rows: StoredRows
    sft_rows: StoredRows | None
    validation_rows: StoredRows | None
    base_model_name: str | None
    policy: StoredTree | None
    submitted_at: datetime


@writes
def find_inputs(session: Session, claim: ClaimedJob) -> JobInputs:
    """Return a job's inputs. Raises Fenced without the job, InvalidRequest without the policy it starts from."""
    job = job_rows.find_job(session, claim.project_id, claim.job_id)
    if job is None:
        raise Fenced(f"{claim.job_id} is gone.")
    name = str(job.spec["base_model"])
    policy = None
    if starting_points.is_job_reference(name):
        policy = starting_points.find_policy(session, claim.project_id, name).tree
    return JobInputs(
        rows=_stored_rows(session, claim.project_id, job.dataset_id),
        sft_rows=_optional_rows(session, claim.project_id, job.sft_dataset_id),
        validation_rows=_optional_rows(session, claim.project_id, job.validation_dataset_id),
        base_model_name=None if policy else name,
        policy=policy,
        submitted_at=job.created_at,
    )


def _optional_rows(session: Session, project_id: str, dataset_id: str | None) -> StoredRows | None:
    return _stored_rows(session, project_id, dataset_id) if dataset_id else None


def _stored_rows(session: Session, project_id: str, dataset_id: str) -> StoredRows:
    row = dataset_rows.find_dataset(session, project_id, dataset_id)
    if row is None:
        raise Fenced(f"{dataset_id} is gone.")
    key = keys.dataset_rows(project_id, dataset_id)
    file = None
    if row.rows_sha256 is not None and row.rows_bytes is not None:
        file = StoredFile(path="rows.jsonl", num_bytes=row.rows_bytes, sha256=row.rows_sha256, key=key)
    original_key = keys.dataset_original(project_id, dataset_id)
    return StoredRows(
        dataset_id=dataset_id,
        key=key,
        file=file,
        original=StoredFile(path="original", num_bytes=row.num_bytes, sha256=row.sha256, key=original_key),
        options=dict(row.options),
    )
