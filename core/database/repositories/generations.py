"""Rows of generations and of the parts that are done."""

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from core.database.columns import json_text
from core.database.repositories import owned
from core.database.repositories.judging_lists import holds_policy_of, is_version_of
from core.database.tables.generations import Generation, GenerationPart


def list_generations(
    session: Session,
    project_id: str,
    *,
    before: str | None,
    limit: int,
    dataset_id: str | None = None,
    job_id: str | None = None,
) -> list[Generation]:
    """Return generations older than the id `before`, newest first: with prompts of a dataset, by policies of a job."""
    where = []
    if dataset_id is not None:
        where.append(is_version_of(Generation.source_name, dataset_id))
    if job_id is not None:
        where.append(holds_policy_of(json_text(Generation.requested, "models"), job_id))
    return owned.newest(session, Generation, project_id, *where, before=before, limit=limit)


def list_done(session: Session, generation_id: str) -> set[int]:
    """Return the numbers of the parts that are done."""
    return set(session.scalars(select(GenerationPart.number).where(GenerationPart.generation_id == generation_id)))


def find_part(session: Session, generation_id: str, number: int) -> GenerationPart | None:
    return session.get(GenerationPart, (generation_id, number))


def delete_parts(session: Session, generation_id: str) -> None:
    statement = delete(GenerationPart).where(GenerationPart.generation_id == generation_id)
    session.execute(statement.execution_options(synchronize_session=False))


def delete_generation(session: Session, generation_id: str) -> None:
    delete_parts(session, generation_id)
    session.execute(
        delete(Generation).where(Generation.id == generation_id).execution_options(synchronize_session=False)
    )
    session.expunge_all()
