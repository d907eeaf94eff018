"""Records of what finished jobs took."""

from typing import Any

from sqlalchemy.orm import Session

from core.database.columns import database_now
from core.database.repositories import measurements
from core.database.tables.jobs import Job
from core.database.tables.measurements import JobMeasurement
from core.domain.estimates.measured import last_optimizer, settings_key


def record(session: Session, job: Job, values: dict[str, Any]) -> None:
    """Insert the measurement of a job that ran in one attempt, in the transaction that ends it."""
    state, policy, artifact = measurements.stored_bytes(session, job.id)
    stored = {"state_bytes": state, "policy_bytes": policy, "artifact_bytes": artifact}
    own = {"device_class": values["device_class"], "base_model": str(job.base_model_facts["name"])}
    row = JobMeasurement(
        job_id=job.id,
        **own,
        settings=settings_key(job.spec, job.spec["precision"]),
        created_at=database_now(),
        values={
            **values,
            "was_auto": job.requested.get("precision", "auto") == "auto",
            "precision": job.spec["precision"],
            "optimizer": last_optimizer(job.spec),
            "stored": stored,
        },
    )
    measurements.add_measurement(session, row)
