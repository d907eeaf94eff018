"""Names of tuned policies as OpenAI's clients know them: `ft:<base>:<project>:<suffix>:<id>`, perhaps `:ckpt-step-N`.

Only the id and the step decide which policy is meant; the rest is for people. `job_…` and `job_…@<checkpoint id>` name
the same policies.
"""

import re
from dataclasses import dataclass

PREFIX = "ft:"
_CHECKPOINT = re.compile(r":ckpt-step-(\d{1,12})$")
_MAX_PART_CHARS = 48
"""A whole name fits where the name of a base model does."""
_NOT_IN_A_PART = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, kw_only=True)
class PolicyName:
    """A policy that a name means."""

    job_id: str
    step: int | None = None
    """Step of a checkpoint of the last training stage; None: what the job published."""


def policy_name(base_model: str, project_id: str, suffix: str | None, job_id: str, *, step: int | None = None) -> str:
    """Return the name of a job's policy, or of one of its checkpoints; no part of it holds `:` or `/`."""
    parts = [_NOT_IN_A_PART.sub("-", part)[:_MAX_PART_CHARS] for part in (base_model, project_id, suffix or "")]
    name = PREFIX + ":".join([*parts, job_id.removeprefix("job_")])
    return name if step is None else f"{name}:ckpt-step-{step}"


def parse_policy_name(name: str) -> PolicyName | None:
    """Return what `ft:…` means, or None for a text of another form."""
    if not name.startswith(PREFIX):
        return None
    found = _CHECKPOINT.search(name)
    parts = (name[: found.start()] if found else name).split(":")
    if len(parts) != 5 or not re.fullmatch(r"[0-9a-z]{1,64}", parts[-1]):
        return None
    return PolicyName(job_id=f"job_{parts[-1]}", step=int(found[1]) if found else None)
