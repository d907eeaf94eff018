"""Jobs that have published a real model: played, with a folder that the test made."""

from pathlib import Path

from api_server import RunningApi
from backends import claim

from core.domain.jobs.stored_files import StoredFile, StoredTree
from core.services.attempts import lifecycle
from core.services.attempts.lifecycle import Publication
from core.services.backend import Backend
from core.storage import keys
from core.storage.trees import upload_tree


def publish_model(api: RunningApi, folder: Path, **fields: object) -> str:
    """Submit a job, and end it as one that has trained the model in the folder; returns its id."""
    job_id = str(api.submit(**fields)["id"])
    publish(api.backend, job_id, folder)
    return job_id


def publish(backend: Backend, job_id: str, folder: Path) -> None:
    """End the next queued job as one that has trained the model in the folder."""
    held = claim(backend)
    assert held.job_id == job_id
    prefix = keys.artifact_prefix(held.project_id, held.job_id, held.attempt_name)
    tree = upload_tree(backend.store, prefix, folder)
    files = [
        StoredFile(path=file.path, key=prefix + file.path, num_bytes=file.num_bytes, sha256=file.sha256)
        for file in tree.files
    ]
    stored = StoredTree(prefix=prefix, manifest_sha256=tree.manifest_sha256)
    lifecycle.finish_succeeded(held, Publication(tree=stored, files=files))
