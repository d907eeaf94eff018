"""Published artifacts of jobs."""

from collections.abc import Collection

from sqlalchemy.orm import Session

from core.database.repositories import jobs as job_rows
from core.database.repositories import objects
from core.database.repositories.events import EventDraft, append_event
from core.domain.errors import Conflict, NotFound
from core.domain.jobs.job_state import FINAL_STATUSES
from core.domain.jobs.stored_files import StoredFile
from core.services.access import audit
from core.services.backend import Backend
from core.services.jobs import jobs, retention
from core.services.transactions import reads, writes
from core.services.views import ArtifactView, from_row


class ArtifactNotFound(NotFound):
    code = "artifact-not-found"
    title = "The job has published nothing"


class ArtifactNotDeletable(Conflict):
    code = "artifact-not-deletable"
    title = "What the job published is still needed"


class ArtifactFileNotFound(NotFound):
    code = "artifact-file-not-found"
    title = "The artifact has no such file"


@reads
def get(session: Session, project_id: str, job_id: str) -> ArtifactView:
    """Return the artifact. Raises ArtifactNotFound, which says whether there will be one."""
    job = jobs.find(session, project_id, job_id)
    artifact = objects.find_artifact(session, job_id)
    if artifact is None:
        raise ArtifactNotFound(f"{job_id} is {job.status.value} and has no artifact.")
    return from_row(
        ArtifactView, artifact, job_id=job_id, files=[row.file for row in objects.list_artifact_files(session, job_id)]
    )


@writes
def delete(session: Session, project_id: str, job_id: str) -> None:
    """Delete what the job published and the policies of its checkpoints; job, curves and events stay.

    Raises ArtifactNotDeletable while the job or one that starts from it has not finished.
    """
    job = jobs.lock(session, project_id, job_id)
    if job.status not in FINAL_STATUSES:
        raise ArtifactNotDeletable(f"{job_id} is {job.status.value}; cancel it first.")
    user = job_rows.find_live_user_of_job(session, job_id)
    if user is not None:
        raise ArtifactNotDeletable(f"{user} starts from its policy and has not finished.")
    retention.drop_checkpoints(session, job, "policy deleted")
    retention.drop_outputs(session, job, "policy deleted")
    # By its token once, should the commit be repeated.
    event = EventDraft(kind="policy_deleted", message="The policy was deleted by the user.", token="policy deleted")
    append_event(session, job, event)
    audit.note(session, project_id, "artifact.delete", job_id)


def find_files(session: Session, job_ids: Collection[str], path: str) -> dict[str, StoredFile]:
    """Return the file of that path of each job whose artifact has it, by job."""
    return {job_id: row.file for job_id, row in objects.list_named_files(session, job_ids, path).items()}


def find_file(backend: Backend, project_id: str, job_id: str, path: str) -> StoredFile:
    """Return a file of the artifact. Raises ArtifactNotFound, ArtifactFileNotFound."""
    for file in get(backend, project_id, job_id).files:
        if file.path == path:
            return file
    raise ArtifactFileNotFound(f"The artifact of {job_id} has no file of that path.")
