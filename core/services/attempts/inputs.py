"""Where a worker finds what a job reads."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from core.database.repositories import jobs as job_rows
from core.domain.errors import Fenced
from core.services.attempts.lifecycle import Claim
from core.services.backend import Backend
from core.services.base_models import starting_points
from core.storage import keys
from core.storage.trees import StoredTree


@dataclass(frozen=True, kw_only=True)
class JobInputs:
    """Object keys, and the base model: either a name in the models directory, or the files of a tuned policy."""

    rows_key: str
    sft_rows_key: str | None
    validation_rows_key: str | None
    base_model_name: str | None
    policy: StoredTree | None
    submitted_at: datetime


def find_inputs(backend: Backend, claim: Claim) -> JobInputs:
    """Raises Fenced when the job is gone, InvalidRequest when the policy that it starts from is."""

    def work(session: Session) -> JobInputs:
        job = job_rows.find_job(session, claim.project_id, claim.job_id)
        if job is None:
            raise Fenced(f"{claim.job_id} is gone.")
        name = str(job.spec["base_model"])
        policy = None
        if starting_points.is_job_reference(name):
            policy = starting_points.find_policy(session, claim.project_id, name).tree
        return JobInputs(
            rows_key=keys.dataset_rows(claim.project_id, job.dataset_id),
            sft_rows_key=_rows_key(claim.project_id, job.sft_dataset_id),
            validation_rows_key=_rows_key(claim.project_id, job.validation_dataset_id),
            base_model_name=None if policy else name,
            policy=policy,
            submitted_at=job.created_at,
        )

    return backend.database.write(work)


def _rows_key(project_id: str, dataset_id: str | None) -> str | None:
    return keys.dataset_rows(project_id, dataset_id) if dataset_id else None
