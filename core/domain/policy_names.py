"""Names of tuned policies: `job_…`, `job_…@<checkpoint id>`, or `ft:<base>:<project>:<suffix>:<id>`.

The last is what OpenAI's clients know, and may end in `:ckpt-step-N`; its id and step decide which policy is meant, the
rest is for people. With `@sft` behind it, a job's name means its policy before DPO.
"""

import re
from dataclasses import dataclass, replace

PREFIX = "ft:"
SFT_SUFFIX = "@sft"
"""`job_…@sft` names the policy of a job before its DPO stage."""
_JOB = "job_"
_CHECKPOINT = re.compile(r":ckpt-step-(\d{1,12})$")
_MAX_PART_CHARS = 48
"""A whole name fits where the name of a base model does."""
_NOT_IN_A_PART = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, kw_only=True)
class PolicyName:
    """A policy that a name means."""

    job_id: str
    step: int | None = None
    """Step of a checkpoint of the last training stage, by which an `ft:…` names it."""
    checkpoint_id: str | None = None
    """Id of a checkpoint, by which a `job_…@…` names it. Neither step nor id: what the job published."""
    is_sft: bool = False
    """The policy before DPO is meant."""


def policy_name(base_model: str, project_id: str, suffix: str | None, job_id: str, *, step: int | None = None) -> str:
    """Return the name of a job's policy, or of one of its checkpoints; no part of it holds `:` or `/`."""
    parts = [_NOT_IN_A_PART.sub("-", part)[:_MAX_PART_CHARS] for part in (base_model, project_id, suffix or "")]
    name = PREFIX + ":".join([*parts, job_id.removeprefix(_JOB)])
    return name if step is None else f"{name}:ckpt-step-{step}"


def parse_policy_name(name: str) -> PolicyName | None:
    """Return what `ft:…` means, or None for a text of another form."""
    if not name.startswith(PREFIX):
        return None
    found = _CHECKPOINT.search(name)
    parts = (name[: found.start()] if found else name).split(":")
    if len(parts) != 5 or not re.fullmatch(r"[0-9a-z]{1,64}", parts[-1]):
        return None
    return PolicyName(job_id=f"{_JOB}{parts[-1]}", step=int(found[1]) if found else None)


def parse_model_name(name: str) -> PolicyName | None:
    """Return which policy any name of a model means; None for a base model, and for an `ft:…` of another form."""
    stem = name.removesuffix(SFT_SUFFIX)
    named = parse_policy_name(stem)
    if named is None and stem.startswith(_JOB):
        job_id, _, checkpoint_id = stem.partition("@")
        named = PolicyName(job_id=job_id, checkpoint_id=checkpoint_id or None)
    return None if named is None else replace(named, is_sft=stem != name)
