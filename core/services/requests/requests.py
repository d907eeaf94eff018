"""Requests done by the light lane of a worker: submitted and waited for; leased, renewed, released and ended.

Only the holder of the lease renews, releases or ends a request.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from sqlalchemy.orm import Session

from core.database.columns import database_after, database_now
from core.database.repositories import objects, requests
from core.database.tables.jobs import Job
from core.database.tables.objects import Artifact
from core.database.tables.requests import Leased, LeasedRequest
from core.domain.errors import Conflict, InvalidRequest, NotFound
from core.domain.jobs.stored_files import StoredTree
from core.domain.request_status import RequestStatus
from core.services.backend import Backend
from core.services.base_models import starting_points
from core.services.ids import new_suffix
from core.services.jobs import jobs
from core.services.transactions import writes

MAX_TRIES = 3

Table = type[Leased]
Request = TypeVar("Request", bound=LeasedRequest)
AnyLeased = TypeVar("AnyLeased", bound=Leased)
Claimed = TypeVar("Claimed")


class RequestView(Protocol):
    @property
    def status(self) -> RequestStatus: ...


View = TypeVar("View", bound=RequestView)


@dataclass(frozen=True, kw_only=True)
class RequestLease:
    """Lease of one request, held by one lane."""

    table: Table
    id: str
    token: str


def submit(session: Session, row: Leased, *, max_waiting: int, what: str, too_many: type[Conflict]) -> None:
    """Queue a row with its own columns filled in; `what` is its plural name. Raises `too_many`."""
    if requests.count_waiting(session, type(row), row.project_id) >= max_waiting:
        raise too_many(f"{max_waiting} {what} are waiting; try again when some are done.")
    row.status = RequestStatus.QUEUED
    row.num_tries = 0
    row.created_at = database_now()
    session.add(row)
    session.flush()


def find(
    session: Session, table: type[Request], project_id: str, job_id: str, request_id: str, not_found: type[NotFound]
) -> Request:
    """Return a request of a job. Raises JobNotFound, `not_found`."""
    jobs.find(session, project_id, job_id)
    row = requests.find_request(session, table, job_id, request_id)
    if row is None:
        raise not_found(f"{job_id} has no {request_id}.")
    return row


def find_policy(session: Session, row: LeasedRequest, gone: type[Conflict]) -> tuple[Job, Artifact, StoredTree]:
    """Return the job of a request, its artifact, and the published folder. Raises JobNotFound, `gone`."""
    job = jobs.find(session, row.project_id, row.job_id)
    artifact = _find_artifact(session, job, gone)
    return job, artifact, artifact.tree


def find_published(session: Session, job: Job, gone: type[Conflict]) -> StoredTree:
    """Return the folder that a job published. Raises `gone`."""
    return _find_artifact(session, job, gone).tree


def _find_artifact(session: Session, job: Job, gone: type[Conflict]) -> Artifact:
    artifact = objects.find_artifact(session, job.id)
    if artifact is None:
        raise gone("What the job published is gone.")
    return artifact


def find_base(session: Session, job: Job) -> tuple[str | None, StoredTree | None]:
    """Return what a job started from: the name of a base model, or else a policy's folder. Raises InvalidRequest."""
    name = str(job.spec["base_model"])
    if not starting_points.is_job_reference(name):
        return name, None
    return None, starting_points.find_policy(session, job.project_id, name).tree


def is_ended(view: RequestView) -> bool:
    return view.status not in requests.WAITING


def claim_next(
    backend: Backend,
    table: type[AnyLeased],
    lease_seconds: float,
    find_inputs: Callable[[AnyLeased, RequestLease], Claimed],
) -> Claimed | None:
    """Claim the next request with its inputs; one without inputs is failed, and the next looked for."""
    while True:
        token = new_suffix()
        row = backend.database.write(
            partial(requests.claim_next, table=table, token=token, lease_seconds=lease_seconds)
        )
        if row is None:
            return None
        lease = RequestLease(table=table, id=row.id, token=token)
        if row.num_tries > MAX_TRIES:
            fail(backend, lease, "It ended the process each time that it was tried; ask for less.")
            continue
        try:
            return find_inputs(row, lease)
        except (InvalidRequest, NotFound, Conflict) as error:
            fail(backend, lease, error.detail)


@writes
def renew(session: Session, lease: RequestLease, lease_seconds: float) -> bool:
    """Renew the lease; False when another lane has the request, or its job is gone."""
    row = requests.find_held(session, lease.table, lease.id, lease.token)
    if row is not None:
        row.lease_expires_at = database_after(lease_seconds)
    return row is not None


def fail(backend: Backend, lease: RequestLease, detail: str) -> None:
    """End the request as failed; `detail` is for the user."""

    def change(_session: Session, row: Leased) -> None:
        row.error_detail = detail

    end(backend, lease, RequestStatus.FAILED, change)


@writes
def end(
    session: Session,
    lease: RequestLease,
    status: RequestStatus,
    change: Callable[[Session, Leased], None],
) -> None:
    """End the request and make `change` in the same transaction; does nothing when the lease is lost."""
    row = requests.find_held(session, lease.table, lease.id, lease.token)
    if row is not None:
        settle(row, status)
        change(session, row)


def settle(row: Leased, status: RequestStatus) -> None:
    """Give the request its last status; whoever holds it loses the lease."""
    row.status, row.lease_token, row.lease_expires_at = status, None, None
    row.finished_at = database_now()


@writes
def give_back(session: Session, lease: RequestLease, *, counts: bool = False) -> None:
    """Return the request to the queue because this lane ends, or its program was killed, which `counts` as a try."""
    row = requests.find_held(session, lease.table, lease.id, lease.token)
    if row is not None:
        row.status, row.lease_token, row.lease_expires_at = RequestStatus.QUEUED, None, None
        row.num_tries -= not counts
