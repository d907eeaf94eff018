"""Rows of rounds and their steps."""

from collections.abc import Collection

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from core.database.tables.generations import Generation
from core.database.tables.judgements import Judgement
from core.database.tables.projects import Project
from core.database.tables.rounds import Rounds, RoundStep


def lock_project(session: Session, project_id: str) -> None:
    """Let no other rounds of the project be opened before the transaction ends."""
    session.execute(select(Project.id).where(Project.id == project_id).with_for_update(key_share=True))


def count_open(session: Session, project_id: str) -> int:
    mine = (Rounds.project_id == project_id, Rounds.finished_at.is_(None))
    return session.scalars(select(func.count()).select_from(Rounds).where(*mine)).one()


def list_open(session: Session, limit: int, *, after: str) -> list[tuple[str, int]]:
    """Return the ids of rounds that have not ended with the number of their troubles, those newer than the id `after`.

    The oldest come first.
    """
    statement = select(Rounds.id, Rounds.num_troubles).where(Rounds.finished_at.is_(None), Rounds.id > after)
    return [(rounds_id, number) for rounds_id, number in session.execute(statement.order_by(Rounds.id).limit(limit))]


def list_steps(session: Session, rounds_ids: Collection[str]) -> list[RoundStep]:
    statement = select(RoundStep).where(RoundStep.rounds_id.in_(rounds_ids))
    return list(session.scalars(statement.order_by(RoundStep.rounds_id, RoundStep.position)))


def release_children(session: Session, rounds_id: str) -> None:
    """Let generations and judgements go on that the rounds hold, since they end and will not release them."""
    held = [step.child_id for step in list_steps(session, [rounds_id]) if step.is_held]
    for table in (Generation, Judgement):
        session.execute(update(table).where(table.id.in_(held)).values(is_held=False))


def delete_rounds(session: Session, rounds_id: str) -> None:
    session.execute(delete(RoundStep).where(RoundStep.rounds_id == rounds_id))
    session.execute(delete(Rounds).where(Rounds.id == rounds_id))
