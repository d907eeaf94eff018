"""What the members of a sweep share: SFT and the reference, which one member computes before the others are queued.

Members that were queued at once would wait for it in a worker each; and where the builder's process dies, the next one
would begin to build too.
"""

from collections.abc import Collection
from typing import Any

from core.domain.estimates.measured import stage_settings
from core.domain.jobs.job_spec import JobRequest
from core.domain.jobs.job_state import Stage
from core.domain.jobs.methods import get_method
from core.domain.variants.checks import get_variant

Keys = dict[str, dict[str, Any]]
Member = tuple[str, Keys]
"""Job of a member, and the settings of its shared stages."""


def shared_keys(request: JobRequest) -> Keys:
    """Return the settings that decide each stage that other jobs can take over; none for a job that shares nothing."""
    if not request.reuse or not get_method(request.method).has(Stage.REFERENCE):
        return {}
    values, variant = request.model_dump(mode="json"), get_variant(request.variant)
    if "sft" not in request.model_fields_set and variant.has_own_sft:
        values["sft"] = "skip"
    if request.dataset_version is not None:
        values["dataset_id"] = f"{request.dataset_id.partition('@')[0]}@{request.dataset_version}"
    precision = {"precision": request.precision}
    keys: Keys = {}
    if values["sft"] != "skip":
        keys[Stage.SFT.value] = stage_settings(values, Stage.SFT.value) | precision
    if variant.needs_reference:
        keys[Stage.REFERENCE.value] = stage_settings(values, Stage.REFERENCE.value) | precision
    return keys


def must_wait(
    keys: Keys, live: Collection[Member], submitted: Collection[Member], made: Collection[tuple[str, str]]
) -> bool:
    """Whether a member waits for a stage that another one is to make.

    Args:
        live: members whose jobs have not ended.
        submitted: all members that have a job.
        made: jobs and their stages whose output is stored, or which they have taken over or skipped.
    """
    for stage, key in keys.items():
        is_there = any(key == theirs.get(stage) and (job_id, stage) in made for job_id, theirs in submitted)
        if not is_there and any(key == theirs.get(stage) for _, theirs in live):
            return True
    return False
