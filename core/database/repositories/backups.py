"""What backups need of the rows: holds on the collector, all objects that rows name, and an end to all leases."""

from sqlalchemy import delete, exists, select, update
from sqlalchemy.orm import Session

from core.database.columns import database_after, database_now
from core.database.repositories import object_checks
from core.database.repositories.object_checks import Thing
from core.database.tables.bookkeeping import IdempotencyKey, SweeperLock
from core.database.tables.datasets import Dataset, DatasetStatus
from core.database.tables.exports import ExportRequest
from core.database.tables.generations import Generation
from core.database.tables.jobs import Job
from core.database.tables.judgements import Judgement
from core.database.tables.republications import RepublishRequest
from core.database.tables.scores import ScoreRequest
from core.database.tables.uploads import Arrival, Upload, UploadPart, UploadStatus
from core.database.tables.webhooks import WebhookDelivery
from core.domain.jobs.job_state import JobStatus
from core.domain.request_status import RequestStatus

_HOLD = "backup:"
RESTORED = "restored"
"""Token that nobody holds, where a lease must have one."""


def hold_garbage(session: Session, token: str, seconds: float) -> None:
    """Keep the collector from deleting objects for so long; forget holds of backups that are gone."""
    others = (SweeperLock.name.startswith(_HOLD), SweeperLock.name != _HOLD + token)
    session.execute(delete(SweeperLock).where(*others, SweeperLock.expires_at < database_now()))
    mine = session.get(SweeperLock, _HOLD + token)
    if mine is None:
        mine = SweeperLock(name=_HOLD + token, owner=token)
        session.add(mine)
    mine.expires_at = database_after(seconds)


def release_garbage(session: Session, token: str) -> None:
    session.execute(delete(SweeperLock).where(SweeperLock.name == _HOLD + token))


def is_garbage_held(session: Session) -> bool:
    """Whether a backup is being made: what a row named when it began must stay in the store."""
    held = (SweeperLock.name.startswith(_HOLD), SweeperLock.expires_at >= database_now())
    return bool(session.scalar(select(exists().where(*held))))


def list_things(session: Session) -> list[Thing]:
    """Return whatever rows name, but for what is on its way to a dataset."""
    found: list[Thing] = []
    cursor = ""
    while (thing := object_checks.next_thing(session, cursor)) is not None:
        found.append(thing)
        cursor = thing.cursor
    return found


def list_open_parts(session: Session) -> list[tuple[str, UploadPart]]:
    """Return the parts of open uploads, each with its project."""
    parts = select(Upload.project_id, UploadPart).join(UploadPart, UploadPart.upload_id == Upload.id)
    found = session.execute(parts.where(Upload.status == UploadStatus.OPEN))
    return [(project_id, part) for project_id, part in found]


def list_processing(session: Session) -> list[Dataset]:
    """Return datasets whose files are being checked."""
    return list(session.scalars(select(Dataset).where(Dataset.status == DatasetStatus.PROCESSING)))


def list_running(session: Session) -> list[Job]:
    return list(session.scalars(select(Job).where(Job.status == JobStatus.RUNNING)))


def end_leases(session: Session) -> None:
    """End all leases but those of jobs: what was being done is to be done again, and nobody may finish it late."""
    for table in (ScoreRequest, ExportRequest, RepublishRequest, Generation, Judgement):
        waiting = {"status": RequestStatus.QUEUED, "lease_token": None, "lease_expires_at": None}
        session.execute(update(table).where(table.status == RequestStatus.RUNNING).values(waiting))
    over = {"lease_owner": RESTORED, "lease_expires_at": database_after(-1)}
    session.execute(update(Dataset).where(Dataset.lease_owner.is_not(None)).values(over))
    session.execute(update(Upload).values(assembler=None, assembling_until=None))
    session.execute(update(WebhookDelivery).values(lease_token=None, lease_expires_at=None))
    # The id that was chosen stays: a repeated request finds what the first has made.
    token = {"lease_token": RESTORED, "lease_expires_at": database_after(-1)}
    session.execute(update(IdempotencyKey).where(IdempotencyKey.lease_token.is_not(None)).values(token))
    session.execute(delete(Arrival))
    session.execute(delete(SweeperLock).where(SweeperLock.name.startswith(_HOLD)))
    session.execute(update(SweeperLock).values(owner="", expires_at=database_now()))
