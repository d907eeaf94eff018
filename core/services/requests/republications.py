"""Policies published again from their adapter and base model, on request, by the light lane of a worker.

An earlier version merged adapters in bf16, which rounds small updates away. The new folder replaces the old one in one
transaction; exports that were made of the old one go with it.
"""

import itertools
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy.orm import Session

from core.database.columns import database_now
from core.database.repositories import datasets as dataset_rows
from core.database.repositories import garbage, objects, requests, retention
from core.database.repositories import jobs as job_rows
from core.database.repositories.events import EventDraft, append_event
from core.database.tables.exports import ExportRequest
from core.database.tables.jobs import Job
from core.database.tables.objects import Artifact
from core.database.tables.republications import RepublishRequest
from core.database.tables.requests import Leased
from core.domain.errors import Conflict, NotFound
from core.domain.jobs.event_kinds import REPUBLISHED
from core.domain.jobs.stored_files import StoredTree
from core.domain.request_status import RequestStatus
from core.services.access import audit
from core.services.backend import Backend
from core.services.ids import new_id
from core.services.jobs import jobs
from core.services.jobs.weights import is_merged_in_bf16
from core.services.requests import requests as light_requests
from core.services.requests.requests import RequestLease
from core.services.transactions import reads, writes
from core.services.views import from_row
from core.storage import keys
from core.storage.object_store import ObjectNotFound
from core.storage.trees import UploadedTree
from core.wording import counted

MAX_WAITING = 20
"""Requests of a project that are not done."""
MAX_ROWS_BYTES = 4 * 1024**2
"""Most bytes of the dataset's rows that the new folder is verified on."""


class RepublicationNotFound(NotFound):
    code = "republication-not-found"
    title = "There is no such republication"


class NothingToRepublish(Conflict):
    code = "nothing-to-republish"
    title = "The job's policy needs no new merge"


class TooManyRepublications(Conflict):
    code = "too-many-republications"
    title = "Too many republications are waiting"


@dataclass(frozen=True, kw_only=True)
class RepublicationView:
    id: str
    job_id: str
    status: RequestStatus
    outcome: dict[str, Any] | None
    error: str | None
    created_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class RepublicationClaim:
    """A claimed request: what is merged, and where the result goes."""

    lease: RequestLease
    project_id: str
    job_id: str
    spec: dict[str, Any]
    policy: StoredTree
    base_model_name: str | None
    base_policy: StoredTree | None
    rows: list[str]
    """Lines of the dataset, as many as fit; none where it was deleted."""
    prefix: str
    submitted_at: datetime


def create(backend: Backend, project_id: str, job_id: str, *, request_id: str | None = None) -> RepublicationView:
    """Request a new merge, unless one is pending. Raises JobNotFound, NothingToRepublish, TooManyRepublications."""
    chosen = request_id or new_id("republish")

    def work(session: Session) -> RepublicationView:
        job = jobs.lock(session, project_id, job_id)
        for row in requests.list_requests(session, RepublishRequest, job_id):
            if row.id == chosen or row.status in requests.WAITING:
                return _view(row)
        _require_lossy(session, job)
        row = RepublishRequest(id=chosen, job_id=job_id, project_id=project_id, outcome={})
        light_requests.submit(
            session, row, max_waiting=MAX_WAITING, what="republications", too_many=TooManyRepublications
        )
        audit.note(session, project_id, "republication.create", chosen, job_id=job_id)
        return _view(row)

    return backend.database.write(work)


@reads
def get(session: Session, project_id: str, job_id: str, request_id: str) -> RepublicationView:
    """Return a request. Raises RepublicationNotFound."""
    found = light_requests.find(session, RepublishRequest, project_id, job_id, request_id, RepublicationNotFound)
    return _view(found)


def claim(backend: Backend, lease_seconds: float) -> RepublicationClaim | None:
    """Claim the next request; None without one."""
    return light_requests.claim_next(backend, RepublishRequest, lease_seconds, partial(_find_inputs, backend))


def finish(backend: Backend, claim: RepublicationClaim, tree: UploadedTree, verification: dict[str, Any]) -> None:
    """Put the uploaded folder in the old one's place. Raises NothingToRepublish where that cannot be done now."""

    def change(session: Session, row: Leased) -> None:
        assert isinstance(row, RepublishRequest)
        job = jobs.lock(session, claim.project_id, claim.job_id)
        old = _require_lossy(session, job)
        if old.prefix != claim.policy.prefix:
            raise NothingToRepublish("The policy was published anew meanwhile.")
        num_exports = _drop_exports(session, job)
        row.outcome = {
            "manifest_sha256_before": old.manifest_sha256,
            "manifest_sha256": tree.manifest_sha256,
            "weights_dtype": "float32",
            "num_exports_removed": num_exports,
            "verification": verification,
        }
        _replace(session, old, tree)
        message = (
            "The adapter was merged again, in float32, verified, and published in the place of the merge in bf16: the "
            f"artifact's digests have changed (manifest {tree.manifest_sha256[:12]}…, before "
            f"{claim.policy.manifest_sha256[:12]}…)."
        )
        if num_exports:
            exports = f"{counted(num_exports, 'export')} of the old weights {'is' if num_exports == 1 else 'are'}"
            message += f" {exports} gone; request what you need again."
        append_event(session, job, EventDraft(kind=REPUBLISHED, message=message, data=dict(row.outcome)))

    light_requests.end(backend, claim.lease, RequestStatus.SUCCEEDED, change)


def _require_lossy(session: Session, job: Job) -> Artifact:
    artifact = objects.find_artifact(session, job.id)
    if artifact is None:
        raise NothingToRepublish(f"{job.id} is {job.status.value} and has published no policy.")
    if not is_merged_in_bf16(job.spec, artifact.weights_dtype):
        raise NothingToRepublish(
            "Only a LoRA policy that an earlier version merged in bf16 is merged again (the job's artifact says "
            "merged_in_bf16; a minute after an upgrade it is known)."
        )
    user = job_rows.find_live_user_of_job(session, job.id)
    if user is not None:
        raise NothingToRepublish(f"{user} starts from this policy and has not finished; ask again then.")
    return artifact


def _replace(session: Session, artifact: Artifact, tree: UploadedTree) -> None:
    garbage.add_garbage(session, artifact.project_id, artifact.prefix, "republished")
    retention.delete_artifact_files(session, artifact.job_id)
    artifact.prefix, artifact.manifest_sha256 = tree.prefix, tree.manifest_sha256
    artifact.num_files, artifact.num_bytes = len(tree.files), tree.num_bytes
    artifact.weights_dtype, artifact.created_at = "float32", database_now()
    session.add_all(artifact.file_row(file) for file in tree.files)


def _drop_exports(session: Session, job: Job) -> int:
    rows = requests.list_requests(session, ExportRequest, job.id)
    for row in rows:
        if row.prefix is not None:
            garbage.add_garbage(session, job.project_id, row.prefix, "republished")
        session.delete(row)
    return len([row for row in rows if row.prefix is not None])


def _find_inputs(backend: Backend, row: RepublishRequest, lease: RequestLease) -> RepublicationClaim:
    """Return what is merged. Raises NotFound, InvalidRequest and Conflict with a sentence for the user."""
    job, artifact, has_rows, base_model_name, base_policy = _read(backend, row)
    return RepublicationClaim(
        lease=lease,
        project_id=row.project_id,
        job_id=row.job_id,
        spec=job.spec,
        policy=artifact.tree,
        base_model_name=base_model_name,
        base_policy=base_policy,
        rows=_first_rows(backend, row.project_id, job.dataset_id) if has_rows else [],
        prefix=keys.export_prefix(row.project_id, row.job_id, artifact.attempt, row.id),
        submitted_at=job.created_at,
    )


@writes
def _read(session: Session, row: RepublishRequest) -> tuple[Job, Artifact, bool, str | None, StoredTree | None]:
    job = jobs.lock(session, row.project_id, row.job_id)
    artifact = _require_lossy(session, job)
    has_rows = dataset_rows.find_dataset(session, row.project_id, job.dataset_id) is not None
    return job, artifact, has_rows, *light_requests.find_base(session, job)


def _first_rows(backend: Backend, project_id: str, dataset_id: str) -> list[str]:
    """Return whole lines of the dataset's rows, as many as `MAX_ROWS_BYTES` hold."""
    try:
        chunks = backend.store.read(keys.dataset_rows(project_id, dataset_id), 0, MAX_ROWS_BYTES)
        content = b"".join(itertools.islice(chunks, MAX_ROWS_BYTES))
    except ObjectNotFound:
        return []
    whole = content if len(content) < MAX_ROWS_BYTES else content[: content.rfind(b"\n") + 1]
    return [line for line in whole.decode().split("\n") if line]


def _view(row: RepublishRequest) -> RepublicationView:
    is_done = row.status is RequestStatus.SUCCEEDED
    return from_row(RepublicationView, row, outcome=row.outcome if is_done else None, error=row.error_detail)
