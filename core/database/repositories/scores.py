"""Requests for scores: queued, leased to one lane at a time, ended by who holds the lease."""

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session

from core.database.columns import database_after, database_now
from core.database.tables.scores import ScoreRequest, ScoreStatus

_WAITING = (ScoreStatus.QUEUED, ScoreStatus.RUNNING)


def find_request(session: Session, job_id: str, score_id: str) -> ScoreRequest | None:
    return session.scalar(select(ScoreRequest).where(ScoreRequest.id == score_id, ScoreRequest.job_id == job_id))


def count_waiting(session: Session, project_id: str) -> int:
    mine = (ScoreRequest.project_id == project_id, ScoreRequest.status.in_(_WAITING))
    return session.scalars(select(func.count()).select_from(ScoreRequest).where(*mine)).one()


def claim_next(session: Session, token: str, lease_seconds: float) -> ScoreRequest | None:
    """The oldest that is queued, or whose lane is gone."""
    is_left = and_(ScoreRequest.status == ScoreStatus.RUNNING, ScoreRequest.lease_expires_at < database_now())
    statement = (
        select(ScoreRequest)
        .where(or_(ScoreRequest.status == ScoreStatus.QUEUED, is_left))
        .order_by(ScoreRequest.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    request = session.scalar(statement)
    if request is not None:
        request.status = ScoreStatus.RUNNING
        request.lease_token = token
        request.lease_expires_at = database_after(lease_seconds)
        request.num_tries += 1
        session.flush()
    return request


def find_held(session: Session, score_id: str, token: str) -> ScoreRequest | None:
    """The request, locked, if the lease is still held by that token."""
    held = (ScoreRequest.id == score_id, ScoreRequest.lease_token == token)
    return session.scalar(select(ScoreRequest).where(*held).with_for_update())
