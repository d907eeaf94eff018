"""Rows of judgements, of their pairs, and of answers that a language model gave."""

from collections.abc import Sequence

from sqlalchemy import delete, or_, select
from sqlalchemy.orm import Session

from core.database.columns import database_after, database_now
from core.database.repositories import owned
from core.database.repositories.judging_lists import is_policy_of, is_version_of
from core.database.tables.judgements import JudgeAnswer, JudgedPair, Judgement
from core.domain.judging.judgements import PairState, PairVerdict
from core.domain.policy_names import PREFIX
from core.domain.request_status import RequestStatus

KEPT_SECONDS = 30 * 24 * 3600.0
"""For cached answers."""


def list_judgements(
    session: Session,
    project_id: str,
    *,
    before: str | None,
    limit: int,
    dataset_id: str | None = None,
    job_id: str | None = None,
) -> list[Judgement]:
    """Return judgements older than the id `before`, newest first: of a dataset, and of policies of a job."""
    where = []
    if dataset_id is not None:
        where.append(is_version_of(Judgement.source_name, dataset_id))
    if job_id is not None:
        where.append(or_(*(is_policy_of(model, job_id) for model in (Judgement.first_model, Judgement.second_model))))
    return owned.newest(session, Judgement, project_id, *where, before=before, limit=limit)


def list_pairs(
    session: Session, judgement_id: str, *, after: int, limit: int, state: PairState | None = None
) -> list[JudgedPair]:
    """Return pairs behind the position `after`, in order."""
    is_behind = (JudgedPair.judgement_id == judgement_id, JudgedPair.position > after)
    statement = select(JudgedPair).where(*is_behind).order_by(JudgedPair.position).limit(limit)
    if state in tuple(PairVerdict):
        statement = statement.where(JudgedPair.verdict == PairVerdict(state))
    elif state is not None:
        statement = statement.where(JudgedPair.verdict.is_(None), JudgedPair.is_done.is_(state == "failed"))
    return list(session.scalars(statement))


def list_open_pairs(session: Session, judgement_id: str, limit: int) -> list[JudgedPair]:
    """Return the first pairs that are not judged."""
    is_open = (JudgedPair.judgement_id == judgement_id, JudgedPair.is_done.is_(False))
    return list(session.scalars(select(JudgedPair).where(*is_open).order_by(JudgedPair.position).limit(limit)))


def verdicts_by_key(session: Session, judgement_id: str) -> dict[str, PairVerdict]:
    """Return the verdicts of a judgement by the digest of the pair."""
    statement = select(JudgedPair.key, JudgedPair.verdict).where(
        JudgedPair.judgement_id == judgement_id, JudgedPair.verdict.is_not(None)
    )
    return {key: verdict for key, verdict in session.execute(statement) if verdict is not None}


def list_of_policies(session: Session, project_id: str, limit: int) -> list[Judgement]:
    """Return judgements that have succeeded and have a job's policy among their models, newest first."""
    is_policy = [
        or_(model.startswith("job_", autoescape=True), model.startswith(PREFIX, autoescape=True))
        for model in (Judgement.first_model, Judgement.second_model)
    ]
    is_one = (Judgement.project_id == project_id, Judgement.status == RequestStatus.SUCCEEDED, or_(*is_policy))
    return list(session.scalars(select(Judgement).where(*is_one).order_by(Judgement.id.desc()).limit(limit)))


def delete_judgement(session: Session, judgement_id: str) -> None:
    for statement in (
        delete(JudgedPair).where(JudgedPair.judgement_id == judgement_id),
        delete(Judgement).where(Judgement.id == judgement_id),
    ):
        session.execute(statement.execution_options(synchronize_session=False))
    session.expunge_all()


def find_answers(session: Session, project_id: str, keys: Sequence[str]) -> dict[str, JudgeAnswer]:
    is_known = (JudgeAnswer.project_id == project_id, JudgeAnswer.key.in_(keys))
    return {row.key: row for row in session.scalars(select(JudgeAnswer).where(*is_known))}


def keep_answer(session: Session, project_id: str, key: str, answer: dict[str, object]) -> None:
    """Keep an answer, unless it is there."""
    if session.get(JudgeAnswer, (project_id, key)) is None:
        session.add(JudgeAnswer(project_id=project_id, key=key, answer=answer, created_at=database_now()))
        session.flush()


def delete_old_answers(session: Session) -> None:
    statement = delete(JudgeAnswer).where(JudgeAnswer.created_at < database_after(-KEPT_SECONDS))
    session.execute(statement.execution_options(synchronize_session=False))
