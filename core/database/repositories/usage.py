"""Bytes that a project takes of the store, by what takes them."""

from sqlalchemy import Select, delete, func, select, union_all, update
from sqlalchemy.orm import Session

from core.database.columns import database_after, database_now
from core.database.tables.arenas import Arena
from core.database.tables.datasets import Dataset
from core.database.tables.generations import Generation
from core.database.tables.judgements import Judgement
from core.database.tables.objects import Artifact, Checkpoint, CheckpointStatus, StageOutput
from core.database.tables.uploads import Arrival, Upload, UploadStatus

KINDS = (
    "datasets",
    "uploads",
    "arriving",
    "checkpoints",
    "policies",
    "artifacts",
    "stage_outputs",
    "arenas",
    "generations",
    "judgements",
)


def bytes_by_kind(session: Session, project_id: str) -> dict[str, int]:
    """Sum the bytes under each of KINDS. Checkpoints that a retried job shares with its source count once."""
    rows = func.coalesce(Dataset.rows_bytes, 0)
    is_live = (Checkpoint.project_id == project_id, Checkpoint.status == CheckpointStatus.COMMITTED)
    states = select(Checkpoint.prefix, Checkpoint.num_bytes).where(*is_live).distinct().subquery()
    policies = (
        select(Checkpoint.policy_prefix, Checkpoint.policy_num_bytes)
        .where(Checkpoint.project_id == project_id, Checkpoint.policy_prefix.is_not(None))
        .distinct()
        .subquery()
    )
    is_arriving = (Arrival.project_id == project_id, Arrival.expires_at > database_now())
    sums = (
        select(func.sum(Dataset.num_bytes + rows)).where(Dataset.project_id == project_id),
        select(func.sum(Upload.num_bytes)).where(Upload.project_id == project_id, Upload.status == UploadStatus.OPEN),
        select(func.sum(Arrival.num_bytes)).where(*is_arriving),
        select(func.sum(states.c.num_bytes)),
        select(func.sum(policies.c.policy_num_bytes)),
        select(func.sum(Artifact.num_bytes)).where(Artifact.project_id == project_id),
        select(func.sum(StageOutput.num_bytes)).where(StageOutput.project_id == project_id),
        select(func.sum(Arena.num_bytes)).where(Arena.project_id == project_id),
        select(func.sum(Generation.num_bytes)).where(Generation.project_id == project_id),
        select(func.sum(Judgement.num_bytes)).where(Judgement.project_id == project_id),
    )
    return {kind: int(session.scalar(total) or 0) for kind, total in zip(KINDS, sums, strict=True)}


def list_largest(session: Session, project_id: str, limit: int) -> list[tuple[str, int]]:
    """List datasets, open uploads and jobs with the bytes that deleting each gives back, the most first."""
    rows = func.coalesce(Dataset.rows_bytes, 0)
    parts: tuple[Select[str, int], ...] = (
        select(Dataset.id.label("id"), (Dataset.num_bytes + rows).label("size")).where(
            Dataset.project_id == project_id
        ),
        select(Upload.id, Upload.num_bytes).where(Upload.project_id == project_id, Upload.status == UploadStatus.OPEN),
        select(
            Checkpoint.job_id,
            func.sum(Checkpoint.num_bytes + func.coalesce(Checkpoint.policy_num_bytes, 0)),
        )
        .where(Checkpoint.project_id == project_id, Checkpoint.status == CheckpointStatus.COMMITTED)
        .group_by(Checkpoint.job_id),
        select(Artifact.job_id, Artifact.num_bytes).where(Artifact.project_id == project_id),
        select(StageOutput.job_id, func.sum(StageOutput.num_bytes))
        .where(StageOutput.project_id == project_id)
        .group_by(StageOutput.job_id),
        select(Arena.id, Arena.num_bytes).where(Arena.project_id == project_id),
        select(Generation.id, Generation.num_bytes).where(Generation.project_id == project_id),
        select(Judgement.id, Judgement.num_bytes).where(Judgement.project_id == project_id),
    )
    found = union_all(*parts).subquery()
    size = func.sum(found.c.size)
    statement = select(found.c.id, size).group_by(found.c.id).order_by(size.desc(), found.c.id).limit(limit)
    return [(str(name), int(total)) for name, total in session.execute(statement)]


def held_bytes(session: Session, held_as: str) -> int:
    """Return the bytes that an arrival, or an open upload, is counted with."""
    arrival = select(Arrival.num_bytes).where(Arrival.id == held_as, Arrival.expires_at > database_now())
    upload = select(Upload.num_bytes).where(Upload.id == held_as, Upload.status == UploadStatus.OPEN)
    return int(session.scalar(arrival) or session.scalar(upload) or 0)


def put_arrival(session: Session, project_id: str, arrival_id: str, num_bytes: int, seconds: float) -> None:
    """Insert the arrival, or update its size and expiry."""
    values = {"num_bytes": num_bytes, "expires_at": database_after(seconds)}
    changed = session.scalar(update(Arrival).where(Arrival.id == arrival_id).values(values).returning(Arrival.id))
    if changed is None:
        session.add(Arrival(id=arrival_id, project_id=project_id, **values))
        session.flush()


def extend_arrival(session: Session, arrival_id: str, seconds: float) -> bool:
    """Extend an arrival's life; returns False for one that has expired or is gone."""
    is_live = (Arrival.id == arrival_id) & (Arrival.expires_at > database_now())
    statement = update(Arrival).where(is_live).values(expires_at=database_after(seconds)).returning(Arrival.id)
    return session.scalar(statement) is not None


def delete_arrival(session: Session, arrival_id: str) -> None:
    session.execute(delete(Arrival).where(Arrival.id == arrival_id))


def delete_expired_arrivals(session: Session) -> None:
    session.execute(delete(Arrival).where(Arrival.expires_at < database_now()))
