"""Exports of a published policy in another format, made on request by the light lane of a worker.

What is made becomes one more file of the artifact; the folder that was published stays as it is.
"""

from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy.orm import Session

from core.database.repositories import objects, requests
from core.database.repositories.events import EventDraft, append_event
from core.database.tables.exports import ExportRequest
from core.database.tables.requests import Leased
from core.domain.errors import Conflict, InvalidRequest, NotFound
from core.domain.exports import GGUF_ARCHITECTURES, ExportFormat, export_path
from core.domain.jobs.methods import method_of
from core.domain.jobs.stored_files import StoredFile, StoredTree
from core.domain.request_status import RequestStatus
from core.services.access import audit, quotas
from core.services.backend import Backend
from core.services.ids import new_id
from core.services.jobs import jobs
from core.services.requests import requests as light_requests
from core.services.requests.requests import RequestLease
from core.services.transactions import reads
from core.services.views import from_row
from core.storage import keys

MAX_WAITING = 20
"""Requests of a project that are not done."""


class ExportNotFound(NotFound):
    code = "export-not-found"
    title = "There is no such export"


class NothingToExport(Conflict):
    code = "nothing-to-export"
    title = "The job has no policy to export"


class ExportNotSupported(InvalidRequest):
    code = "export-not-supported"
    title = "Policies of this architecture cannot be exported"


class TooManyExports(Conflict):
    code = "too-many-exports"
    title = "Too many exports are waiting"


@dataclass(frozen=True, kw_only=True)
class ExportView:
    id: str
    job_id: str
    format: ExportFormat
    status: RequestStatus
    path: str | None
    """Among the files of the artifact, once succeeded."""
    verification: dict[str, Any] | None
    error: str | None
    created_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class ExportClaim:
    """A claimed export: the policy's files and the destination."""

    lease: RequestLease
    project_id: str
    job_id: str
    format: ExportFormat
    policy: StoredTree
    path: str
    prefix: str


def create(
    backend: Backend, project_id: str, job_id: str, export_format: ExportFormat, *, export_id: str | None = None
) -> ExportView:
    """Request an export, unless it exists or is pending.

    Raises JobNotFound, NothingToExport, ExportNotSupported, TooManyExports, StorageQuotaExceeded.
    """
    chosen = export_id or new_id("export")

    def work(session: Session) -> ExportView:
        job = jobs.lock(session, project_id, job_id)
        if objects.find_artifact(session, job_id) is None:
            raise NothingToExport(f"{job_id} is {job.status.value} and has published no policy.")
        if not method_of(job.spec).publishes_policy:
            raise ExportNotSupported(
                f"{job_id} has published a reward model, and programs that read GGUF run language models; transformers "
                "reads the folder as it is."
            )
        _require_supported(str(job.base_model_facts["architecture"]))
        for row in requests.list_requests(session, ExportRequest, job_id):
            if row.format is export_format and row.status is not RequestStatus.FAILED:
                return _view(row)
        quotas.require_room_for_export(session, project_id)
        row = ExportRequest(id=chosen, job_id=job_id, project_id=project_id, format=export_format, verification={})
        light_requests.submit(session, row, max_waiting=MAX_WAITING, what="exports", too_many=TooManyExports)
        audit.note(session, project_id, "export.create", chosen, job_id=job_id, format=export_format.value)
        return _view(row)

    return backend.database.write(work)


@reads
def list_exports(session: Session, project_id: str, job_id: str) -> list[ExportView]:
    """Return the job's exports, newest first."""
    jobs.find(session, project_id, job_id)
    return [_view(row) for row in requests.list_requests(session, ExportRequest, job_id)]


@reads
def get(session: Session, project_id: str, job_id: str, export_id: str) -> ExportView:
    """Return an export. Raises JobNotFound, ExportNotFound."""
    return _view(light_requests.find(session, ExportRequest, project_id, job_id, export_id, ExportNotFound))


def claim(backend: Backend, lease_seconds: float) -> ExportClaim | None:
    """Claim the next request; None without one."""
    return light_requests.claim_next(backend, ExportRequest, lease_seconds, partial(_find_inputs, backend))


def finish(backend: Backend, claim: ExportClaim, file: StoredFile, verification: dict[str, Any]) -> None:
    """Add a file that was stored under the claim's prefix, and read back, to the artifact."""

    def change(session: Session, row: Leased) -> None:
        assert isinstance(row, ExportRequest)
        job = jobs.lock(session, claim.project_id, claim.job_id)
        artifact = objects.find_artifact(session, claim.job_id)
        assert artifact is not None
        row.prefix, row.verification = claim.prefix, verification
        artifact.num_files += 1
        artifact.num_bytes += file.num_bytes
        session.add(artifact.file_row(file))
        data = {"format": claim.format, "path": claim.path, "num_bytes": file.num_bytes}
        message = f"The policy was exported as {claim.format.value}: {claim.path}"
        append_event(session, job, EventDraft(kind="exported", message=message, data=data))

    light_requests.end(backend, claim.lease, RequestStatus.SUCCEEDED, change)


def _require_supported(architecture: str) -> None:
    if architecture not in GGUF_ARCHITECTURES:
        known = ", ".join(sorted(GGUF_ARCHITECTURES))
        raise ExportNotSupported(f"Policies of {architecture} are not exported as GGUF; those of {known} are.")


@reads
def _find_inputs(session: Session, row: ExportRequest, lease: RequestLease) -> ExportClaim:
    """Return the export's inputs. Raises NotFound and Conflict with a sentence for the user."""
    _, artifact, policy = light_requests.find_policy(session, row, NothingToExport)
    return ExportClaim(
        lease=lease,
        project_id=row.project_id,
        job_id=row.job_id,
        format=row.format,
        policy=policy,
        path=export_path(row.job_id, row.format),
        prefix=keys.export_prefix(row.project_id, row.job_id, artifact.attempt, row.id),
    )


def _view(row: ExportRequest) -> ExportView:
    is_done = row.status is RequestStatus.SUCCEEDED
    return from_row(
        ExportView,
        row,
        path=export_path(row.job_id, row.format) if is_done else None,
        verification=(row.verification or None) if is_done else None,
        error=row.error_detail,
    )
