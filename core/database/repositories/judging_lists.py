"""Conditions by which generations and judgements are listed: what they read, and whose policies they are about."""

from typing import Any

from sqlalchemy import ColumnElement, or_

from core.domain.policy_names import PREFIX, SFT_SUFFIX


def is_version_of(source_name: Any, dataset_id: str) -> ColumnElement[bool]:
    """Tell whether the name of a version means `dataset_id`: that very version, or any of a dataset's."""
    return or_(source_name == dataset_id, source_name.startswith(f"{dataset_id}@", autoescape=True))


def is_policy_of(model: Any, job_id: str) -> ColumnElement[bool]:
    """Tell whether a name is that of a job's policy, of one of its checkpoints, or of its policy before DPO."""
    suffix = _suffix(job_id)
    ends = (suffix, f"{suffix}{SFT_SUFFIX}")
    by_client = or_(
        model.contains(f"{suffix}:ckpt-step-", autoescape=True), *(model.endswith(end, autoescape=True) for end in ends)
    )
    return or_(
        model == job_id,
        model.startswith(f"{job_id}@", autoescape=True),
        model.startswith(PREFIX, autoescape=True) & by_client,
    )


def holds_policy_of(models: Any, job_id: str) -> ColumnElement[bool]:
    """Tell the same of a list of names, as JSON text."""
    suffix = _suffix(job_id)
    names = (f'"{job_id}"', f'"{job_id}@', f'{suffix}"', f'{suffix}{SFT_SUFFIX}"', f"{suffix}:ckpt-step-")
    return or_(*(models.contains(name, autoescape=True) for name in names))


def _suffix(job_id: str) -> str:
    """Return the end of the names that OpenAI's clients know a job's policies by."""
    return f":{job_id.removeprefix('job_')}"
