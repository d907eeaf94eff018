"""Published artifacts of jobs."""

from sqlalchemy.orm import Session

from core.database.repositories import objects
from core.domain.errors import NotFound
from core.services.backend import Backend
from core.services.jobs import jobs
from core.services.views import ArtifactView, StoredFile


class ArtifactNotFound(NotFound):
    code = "artifact-not-found"
    title = "The job has published nothing"


class ArtifactFileNotFound(NotFound):
    code = "artifact-file-not-found"
    title = "The artifact has no such file"


def get(backend: Backend, project_id: str, job_id: str) -> ArtifactView:
    """Return the artifact. Raises ArtifactNotFound, which says whether there will be one."""

    def work(session: Session) -> ArtifactView:
        job = jobs.find(session, project_id, job_id)
        artifact = objects.find_artifact(session, job_id)
        if artifact is None:
            raise ArtifactNotFound(f"{job_id} is {job.status.value} and has no artifact.")
        return ArtifactView(
            job_id=job_id,
            prefix=artifact.prefix,
            manifest_sha256=artifact.manifest_sha256,
            files=[
                StoredFile(path=row.path, num_bytes=row.num_bytes, sha256=row.sha256, key=row.key)
                for row in objects.list_artifact_files(session, job_id)
            ],
            created_at=artifact.created_at,
        )

    return backend.database.read(work)


def find_file(backend: Backend, project_id: str, job_id: str, path: str) -> StoredFile:
    """Return a file of the artifact. Raises ArtifactNotFound, ArtifactFileNotFound."""
    for file in get(backend, project_id, job_id).files:
        if file.path == path:
            return file
    raise ArtifactFileNotFound(f"The artifact of {job_id} has no file of that path.")
