"""What rows say the store must have, thing by thing, and what was found lost."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, delete, func, insert, or_, select, update
from sqlalchemy.orm import Session

from core.database.columns import database_after, database_now
from core.database.tables.bookkeeping import LostObject, ObjectCheck
from core.database.tables.datasets import Dataset, DatasetStatus
from core.database.tables.objects import Artifact, ArtifactFile, Checkpoint, CheckpointStatus, StageOutput
from core.domain.jobs.stored_files import StoredTree

NAME = "objects"


@dataclass(frozen=True, kw_only=True)
class NamedObject:
    key: str
    """Name in the store; for a dataset's the part below its prefix."""
    num_bytes: int | None = None
    """None: not recorded."""
    sha256: str | None = None
    """None: not recorded."""


@dataclass(frozen=True, kw_only=True)
class Thing:
    """What one row, or a row with its files, names."""

    cursor: str
    project_id: str
    owner_id: str
    """A job's or a dataset's."""
    is_job: bool
    trees: tuple[StoredTree, ...] = ()
    objects: tuple[NamedObject, ...] = ()


def next_thing(session: Session, cursor: str) -> Thing | None:
    """Return what comes after the cursor, in an order that stays; None at the end."""
    kind, _, after = cursor.partition(":")
    kinds = list(_FINDERS)
    for name in kinds[kinds.index(kind) if kind in kinds else 0 :]:
        thing = _FINDERS[name](session, after if name == kind else "", False)
        if thing is not None:
            return thing
    return None


def _wanted(column: Any, key: str, is_exact: bool) -> ColumnElement[bool]:
    """Condition for the row of that key, or else for those after it."""
    condition: ColumnElement[bool] = column == key if is_exact else column > key
    return condition


def _dataset(session: Session, key: str, is_exact: bool) -> Thing | None:
    statement = select(Dataset).where(_wanted(Dataset.id, key, is_exact), Dataset.status == DatasetStatus.READY)
    row = session.scalar(statement.order_by(Dataset.id).limit(1))
    if row is None:
        return None
    return Thing(
        cursor=f"datasets:{row.id}",
        project_id=row.project_id,
        owner_id=row.id,
        is_job=False,
        objects=(
            NamedObject(key="original", num_bytes=row.num_bytes, sha256=row.sha256),
            NamedObject(key="rows.jsonl", num_bytes=row.rows_bytes, sha256=row.rows_sha256),
            NamedObject(key="issues.jsonl", num_bytes=None, sha256=row.issues_sha256),
        ),
    )


def _checkpoint(session: Session, key: str, is_exact: bool) -> Thing | None:
    is_stored = or_(Checkpoint.status == CheckpointStatus.COMMITTED, Checkpoint.policy_prefix.is_not(None))
    statement = select(Checkpoint).where(_wanted(Checkpoint.id, key, is_exact), is_stored)
    row = session.scalar(statement.order_by(Checkpoint.id).limit(1))
    if row is None:
        return None
    trees = []
    if row.status is CheckpointStatus.COMMITTED:
        trees.append(row.tree)
    if row.policy_tree is not None:
        trees.append(row.policy_tree)
    return Thing(
        cursor=f"checkpoints:{row.id}",
        project_id=row.project_id,
        owner_id=row.job_id,
        is_job=True,
        trees=tuple(trees),
    )


def _artifact(session: Session, key: str, is_exact: bool) -> Thing | None:
    statement = select(Artifact).where(_wanted(Artifact.job_id, key, is_exact)).order_by(Artifact.job_id).limit(1)
    row = session.scalar(statement)
    if row is None:
        return None
    files = session.scalars(select(ArtifactFile).where(ArtifactFile.job_id == row.job_id).order_by(ArtifactFile.path))
    return Thing(
        cursor=f"artifacts:{row.job_id}",
        project_id=row.project_id,
        owner_id=row.job_id,
        is_job=True,
        objects=tuple(NamedObject(key=file.key, num_bytes=file.num_bytes, sha256=file.sha256) for file in files),
    )


def _output(session: Session, key: str, is_exact: bool) -> Thing | None:
    statement = select(StageOutput).where(_wanted(StageOutput.prefix, key, is_exact))
    row = session.scalar(statement.order_by(StageOutput.prefix).limit(1))
    if row is None:
        return None
    return Thing(
        cursor=f"outputs:{row.prefix}", project_id=row.project_id, owner_id=row.job_id, is_job=True, trees=(row.tree,)
    )


_FINDERS: dict[str, Callable[[Session, str, bool], Thing | None]] = {
    "datasets": _dataset,
    "checkpoints": _checkpoint,
    "artifacts": _artifact,
    "outputs": _output,
}


def ensure_state(session: Session) -> None:
    if session.scalar(select(ObjectCheck.name).where(ObjectCheck.name == NAME)) is None:
        session.add(ObjectCheck(name=NAME, cursor="", next_at=database_now(), began_at=database_now()))


def take_turn(session: Session, seconds: float) -> str | None:
    """Reserve the next look for `seconds`, for whoever asks first; return the cursor, or None when it is not due."""
    statement = (
        update(ObjectCheck)
        .where(ObjectCheck.name == NAME, ObjectCheck.next_at <= database_now())
        .values(next_at=database_after(seconds))
        .returning(ObjectCheck.cursor)
        .execution_options(synchronize_session=False)
    )
    return session.scalar(statement)


def advance(session: Session, cursor: str) -> None:
    _update(session, cursor=cursor)


def end_pass(session: Session) -> None:
    """Begin again, and forget what was lost of things that are no more."""
    began_at = session.scalar(select(ObjectCheck.began_at).where(ObjectCheck.name == NAME))
    session.execute(delete(LostObject).where(LostObject.seen_at < began_at))
    _update(session, cursor="", began_at=database_now(), ended_at=database_now())


def _update(session: Session, **values: Any) -> None:
    statement = update(ObjectCheck).where(ObjectCheck.name == NAME).values(values)
    session.execute(statement.execution_options(synchronize_session=False))


def record(session: Session, thing: Thing, looked_at: Iterable[str], lost: dict[str, str]) -> None:
    """Note which of the keys that were looked at are lost (key -> what), and that the others are there."""
    for key in looked_at:
        mine = LostObject.key == key
        if key not in lost:
            session.execute(delete(LostObject).where(mine))
            continue
        values: dict[str, Any] = {"what": lost[key], "seen_at": database_now()}
        if session.scalar(select(LostObject.key).where(mine)) is not None:
            session.execute(update(LostObject).where(mine).values(values))
            continue
        own = {"key": key, "project_id": thing.project_id, "owner_id": thing.owner_id, "found_at": database_now()}
        session.execute(insert(LostObject).values(own | values))


def is_there(session: Session, thing: Thing) -> bool:
    """Whether the rows still name the very same: what was deleted meanwhile is not lost."""
    kind, _, key = thing.cursor.partition(":")
    return _FINDERS[kind](session, key, True) == thing


def count_lost(session: Session) -> int:
    return session.scalar(select(func.count()).select_from(LostObject)) or 0


def list_lost(session: Session, limit: int) -> list[LostObject]:
    return list(session.scalars(select(LostObject).order_by(LostObject.key).limit(limit)))
