"""Rows of uploads and their parts."""

from typing import Any

from sqlalchemy import delete, exists, func, select, update
from sqlalchemy.orm import Session

from core.database.columns import database_after, database_now
from core.database.tables.uploads import Upload, UploadPart, UploadStatus

_NOBODY: dict[str, Any] = {"assembler": None, "assembling_until": None}


def count_open(session: Session, project_id: str) -> int:
    statement = select(func.count()).where(Upload.project_id == project_id, Upload.status == UploadStatus.OPEN)
    return session.scalar(statement) or 0


def list_parts(session: Session, upload_id: str) -> list[UploadPart]:
    """Return parts in their order."""
    statement = select(UploadPart).where(UploadPart.upload_id == upload_id).order_by(UploadPart.number)
    return list(session.scalars(statement))


def is_assembling(session: Session, upload_id: str) -> bool:
    """Whether some process puts the parts together just now."""
    is_held = (Upload.id == upload_id, Upload.assembling_until > database_now())
    return bool(session.scalar(select(exists().where(*is_held))))


def hold_assembly(session: Session, upload_id: str, token: str, seconds: float | None) -> bool:
    """Renew a process's hold on the parts, or end it with None; return whether it still had it."""
    values = {"assembling_until": database_after(seconds)} if seconds is not None else _NOBODY
    statement = update(Upload).where(Upload.id == upload_id, Upload.assembler == token).values(values)
    held = session.scalar(statement.returning(Upload.id).execution_options(synchronize_session=False))
    return held is not None


def find_part(session: Session, upload_id: str, number: int) -> UploadPart | None:
    return session.get(UploadPart, (upload_id, number))


def sum_bytes(session: Session, upload_id: str) -> int:
    statement = select(func.sum(UploadPart.num_bytes)).where(UploadPart.upload_id == upload_id)
    return int(session.scalar(statement) or 0)


def delete_parts(session: Session, upload_id: str) -> None:
    session.execute(delete(UploadPart).where(UploadPart.upload_id == upload_id))


def delete_upload(session: Session, upload: Upload) -> None:
    delete_parts(session, upload.id)
    session.execute(delete(Upload).where(Upload.id == upload.id))


def list_expired(session: Session, limit: int) -> list[Upload]:
    statement = select(Upload).where(Upload.expires_at < database_now()).order_by(Upload.expires_at).limit(limit)
    return list(session.scalars(statement.with_for_update(skip_locked=True)))


def is_upload_open(session: Session, upload_id: str) -> bool:
    is_open = (Upload.id == upload_id, Upload.status == UploadStatus.OPEN)
    return bool(session.scalar(select(exists().where(*is_open))))


def is_upload_kept(session: Session, upload_id: str) -> bool:
    return bool(session.scalar(select(exists().where(Upload.id == upload_id))))
