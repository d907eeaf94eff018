"""Facts in the database about a policy that is being published."""

from typing import Any

from sqlalchemy.orm import Session

from core.database.repositories import datasets as dataset_rows
from core.database.repositories import jobs as job_rows
from core.database.repositories import samples as sample_rows
from core.services.attempts.claimed_job import ClaimedJob
from core.services.transactions import reads


@reads
def made_of(session: Session, claim: ClaimedJob) -> dict[str, Any]:
    """Return base model, request, digests of the datasets, and samples: the database's part of `job.json`."""
    job = job_rows.find_job(session, claim.project_id, claim.job_id)
    assert job is not None
    names = {job.dataset_id, job.sft_dataset_id, job.validation_dataset_id} - {None}
    found = [dataset_rows.find_dataset(session, claim.project_id, str(name)) for name in sorted(map(str, names))]
    return {
        "base_model": job.base_model_facts,
        "requested": job.requested,
        "dataset_sha256": {dataset.public_id: dataset.sha256 for dataset in found if dataset is not None},
        "samples": [
            {"prompt": row.prompt, "reference": row.reference, "policy": row.policy, "step": row.step}
            for row in sample_rows.list_samples(session, claim.job_id)
        ],
    }
