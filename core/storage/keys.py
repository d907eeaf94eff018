"""The layout of object keys. Server-made ids are the only parts that vary, but for paths inside an artifact.

    projects/<project>/datasets/<dataset>/{original, rows.jsonl, issues.jsonl}
    projects/<project>/jobs/<job>/a<attempt>/checkpoints/<stage>-<step>/…
    projects/<project>/jobs/<job>/a<attempt>/artifact/…
    projects/<project>/jobs/<job>/a<attempt>/stages/<digest>/…

The attempt in the key keeps a worker that was replaced from touching what its successor wrote.
"""

from pathlib import PurePosixPath

ROOT = "projects/"


def dataset_prefix(project_id: str, dataset_id: str) -> str:
    return f"{ROOT}{project_id}/datasets/{dataset_id}/"


def dataset_original(project_id: str, dataset_id: str) -> str:
    return dataset_prefix(project_id, dataset_id) + "original"


def dataset_rows(project_id: str, dataset_id: str) -> str:
    return dataset_prefix(project_id, dataset_id) + "rows.jsonl"


def dataset_issues(project_id: str, dataset_id: str) -> str:
    return dataset_prefix(project_id, dataset_id) + "issues.jsonl"


def attempt_prefix(project_id: str, job_id: str, attempt: int) -> str:
    return f"{ROOT}{project_id}/jobs/{job_id}/a{attempt}/"


def checkpoint_prefix(project_id: str, job_id: str, attempt: int, stage: str, step: int) -> str:
    return f"{attempt_prefix(project_id, job_id, attempt)}checkpoints/{stage}-{step:08d}/"


def artifact_prefix(project_id: str, job_id: str, attempt: int) -> str:
    return attempt_prefix(project_id, job_id, attempt) + "artifact/"


def stage_output_prefix(project_id: str, job_id: str, attempt: int, digest: str) -> str:
    return f"{attempt_prefix(project_id, job_id, attempt)}stages/{digest}/"


def owning_prefix(key: str) -> str | None:
    """The prefix that a row names for this object, or None for a key of another layout."""
    match PurePosixPath(key).parts:
        case ("projects", _, "datasets", _, _):
            num_parts = 4
        case ("projects", _, "jobs", _, _, "checkpoints" | "stages", _, _, *_):
            num_parts = 7
        case ("projects", _, "jobs", _, _, "artifact", _, *_):
            num_parts = 6
        case _:
            return None
    return "/".join(key.split("/")[:num_parts]) + "/"
