"""Layout of object keys. Only server-made ids vary in them, and paths inside an artifact.

    projects/<project>/datasets/<dataset>/{original, rows.jsonl, issues.jsonl}
    projects/<project>/uploads/<upload>/<part number>-<sha256>
    projects/<project>/jobs/<job>/a<attempt>-<token>/checkpoints/<stage>-<step>/…
    projects/<project>/jobs/<job>/a<attempt>-<token>/policies/<stage>-<step>/…
    projects/<project>/jobs/<job>/a<attempt>-<token>/artifact/…
    projects/<project>/jobs/<job>/a<attempt>-<token>/stages/<digest>/…
    projects/<project>/jobs/<job>/a<attempt>-<token>/exports/<export>/…
    base-models/<name>/{current.json, <digest>/…}

The attempt in the key keeps a worker that was replaced from touching what its successor wrote. The end of its token
is there because a database that went back to an earlier state gives out numbers again; keys of the first release have
none.
"""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

ROOT = "projects/"
MODELS_ROOT = "base-models/"
_ATTEMPT = re.compile(r"a[0-9]+(-[0-9a-z]+)?")
_SEVERAL = ("checkpoints", "policies", "stages", "exports")
"""Kinds of which an attempt has several, a folder each."""


def dataset_prefix(project_id: str, dataset_id: str) -> str:
    return f"{ROOT}{project_id}/datasets/{dataset_id}/"


def dataset_original(project_id: str, dataset_id: str) -> str:
    return dataset_prefix(project_id, dataset_id) + "original"


def dataset_rows(project_id: str, dataset_id: str) -> str:
    return dataset_prefix(project_id, dataset_id) + "rows.jsonl"


def dataset_issues(project_id: str, dataset_id: str) -> str:
    return dataset_prefix(project_id, dataset_id) + "issues.jsonl"


def upload_prefix(project_id: str, upload_id: str) -> str:
    return f"{ROOT}{project_id}/uploads/{upload_id}/"


def upload_part(project_id: str, upload_id: str, number: int, sha256: str) -> str:
    """Key of an upload's part; its digest keeps concurrent writers of one part apart."""
    return f"{upload_prefix(project_id, upload_id)}{number:05d}-{sha256}"


def attempt_prefix(project_id: str, job_id: str, attempt: int | str) -> str:
    return f"{ROOT}{project_id}/jobs/{job_id}/a{attempt}/"


def checkpoint_prefix(project_id: str, job_id: str, attempt: int | str, stage: str, step: int) -> str:
    return f"{attempt_prefix(project_id, job_id, attempt)}checkpoints/{stage}-{step:08d}/"


def policy_prefix(project_id: str, job_id: str, attempt: int | str, stage: str, step: int) -> str:
    """Prefix of the policy at a checkpoint, as users load it."""
    return f"{attempt_prefix(project_id, job_id, attempt)}policies/{stage}-{step:08d}/"


def artifact_prefix(project_id: str, job_id: str, attempt: int | str) -> str:
    return attempt_prefix(project_id, job_id, attempt) + "artifact/"


def stage_output_prefix(project_id: str, job_id: str, attempt: int | str, digest: str) -> str:
    return f"{attempt_prefix(project_id, job_id, attempt)}stages/{digest}/"


def export_prefix(project_id: str, job_id: str, attempt: int | str, export_id: str) -> str:
    return f"{attempt_prefix(project_id, job_id, attempt)}exports/{export_id}/"


def base_model_folder(name: str) -> str:
    return f"{MODELS_ROOT}{name}/"


def base_model_pointer(name: str) -> str:
    """Key of the object that names a base model's current digest."""
    return base_model_folder(name) + "current.json"


def base_model_prefix(name: str, digest: str) -> str:
    return f"{base_model_folder(name)}{digest}/"


def owning_prefix(key: str) -> str | None:
    """Return the prefix that a row names for this object, or None for a key of another layout."""
    match PurePosixPath(key).parts:
        case ("projects", _, "datasets" | "uploads", _, _):
            num_parts = 4
        case ("projects", _, "jobs", _, attempt, kind, _, _, *_) if kind in _SEVERAL and _is_attempt(attempt):
            num_parts = 7
        case ("projects", _, "jobs", _, attempt, "artifact", _, *_) if _is_attempt(attempt):
            num_parts = 6
        case _:
            return None
    return "/".join(key.split("/")[:num_parts]) + "/"


@dataclass(frozen=True, kw_only=True)
class Owner:
    """Owner of the objects under a prefix: a dataset, an upload, or an attempt at a job."""

    dataset_id: str | None = None
    upload_id: str | None = None
    job_id: str | None = None
    attempt: int = 0
    token: str = ""
    """The end of the attempt's; empty in keys of the first release."""


def owner_of(prefix: str) -> Owner:
    """Return the owner of a prefix that `owning_prefix` returned."""
    _, _, kind, owner_id, *rest = PurePosixPath(prefix).parts
    if kind == "datasets":
        return Owner(dataset_id=owner_id)
    if kind == "uploads":
        return Owner(upload_id=owner_id)
    number, _, token = rest[0].removeprefix("a").partition("-")
    return Owner(job_id=owner_id, attempt=int(number), token=token)


def _is_attempt(part: str) -> bool:
    return _ATTEMPT.fullmatch(part) is not None
