"""Rows of uploads and their parts."""

from sqlalchemy import delete, exists, func, select
from sqlalchemy.orm import Session

from core.database.columns import database_now
from core.database.tables.uploads import Upload, UploadPart, UploadStatus


def find_upload(session: Session, project_id: str, upload_id: str) -> Upload | None:
    return session.scalar(select(Upload).where(Upload.id == upload_id, Upload.project_id == project_id))


def lock_upload(session: Session, project_id: str, upload_id: str) -> Upload | None:
    statement = select(Upload).where(Upload.id == upload_id, Upload.project_id == project_id)
    return session.scalar(statement.with_for_update().execution_options(populate_existing=True))


def count_open(session: Session, project_id: str) -> int:
    statement = select(func.count()).where(Upload.project_id == project_id, Upload.status == UploadStatus.OPEN)
    return session.scalar(statement) or 0


def list_parts(session: Session, upload_id: str) -> list[UploadPart]:
    """Return parts in their order."""
    statement = select(UploadPart).where(UploadPart.upload_id == upload_id).order_by(UploadPart.number)
    return list(session.scalars(statement))


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
