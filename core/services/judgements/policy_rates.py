"""Win rates of a job's policies: what was judged of them, by the step of training that each is of."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from core.database.repositories import judgements as rows
from core.database.repositories import objects
from core.database.tables.jobs import Job
from core.database.tables.judgements import Judgement
from core.domain.jobs.job_state import Stage
from core.domain.jobs.methods import method_of
from core.domain.judging.generations import WorkStatus
from core.domain.policy_names import parse_model_name
from core.services.jobs import jobs
from core.services.judgements.judgements import view
from core.services.pages import page_of, read_cursor
from core.services.transactions import reads
from core.services.views import Page

Place = tuple[Stage | None, int | None]
"""Stage and step of a policy; the step is None of the policy before DPO, both of a checkpoint without a record."""


@dataclass(frozen=True, kw_only=True)
class PolicyRate:
    """A judgement of one policy of a job against another model."""

    judgement_id: str
    name: str | None
    status: WorkStatus
    policy: str
    stage: Stage | None
    step: int | None
    against: str
    judge: dict[str, Any]
    source: str
    num_pairs: int
    num_judged: int
    num_failed: int
    num_prompts: int | None
    win_rate: dict[str, Any] | None
    length_controlled: dict[str, Any] | None
    created_at: datetime


@reads
def list_page(
    session: Session, project_id: str, job_id: str, *, limit: int = 20, cursor: str | None = None
) -> Page[PolicyRate]:
    """Return a page of judgements of a job's policies, newest first: two where both models are the job's.

    Raises JobNotFound.
    """
    job = jobs.find(session, project_id, job_id)
    found = rows.list_judgements(session, project_id, before=read_cursor(cursor), limit=limit + 1, job_id=job_id)
    place_of = _places(session, job, found[:limit])
    return page_of(found, limit, [rate for row in found[:limit] for rate in _rates(row, place_of)])


def _places(session: Session, job: Job, found: list[Judgement]) -> Callable[[str], Place | None]:
    """Return what tells where in the job's training a model is from; None where it is none of the job's."""
    names = {name: parse_model_name(name) for row in found for name in (row.first_model, row.second_model)}
    ids = {named.checkpoint_id for named in names.values() if named is not None and named.checkpoint_id}
    checkpoints = {row.id: row for row in objects.list_by_ids(session, ids) if row.job_id == job.id}
    last = method_of(job.spec).last
    final: Place = (last, (job.results or {}).get("step"))

    def place(name: str) -> Place | None:
        named = names[name]
        if named is None or named.job_id != job.id:
            return None
        if named.is_sft:
            return Stage.SFT, None
        if named.checkpoint_id is not None:
            checkpoint = checkpoints.get(named.checkpoint_id)
            return (None, None) if checkpoint is None else (checkpoint.stage, checkpoint.step)
        return final if named.step is None else (last, named.step)

    return place


def _rates(row: Judgement, place_of: Callable[[str], Place | None]) -> Iterator[PolicyRate]:
    """Yield the win rate of each side that is the job's; the second's is what the first does not win."""
    first, second = row.first_model, row.second_model
    sides = [(first, second, False)] if first == second else [(first, second, False), (second, first, True)]
    shown = view(row)
    for policy, against, is_second in sides:
        place = place_of(policy)
        if place is None:
            continue
        stage, step = place
        yield PolicyRate(
            judgement_id=shown.id,
            name=shown.name,
            status=shown.status,
            policy=policy,
            stage=stage,
            step=step,
            against=against,
            judge={name: value for name, value in shown.requested["judge"].items() if value is not None},
            source=shown.source,
            num_pairs=shown.num_pairs,
            num_judged=shown.num_judged,
            num_failed=shown.num_failed,
            num_prompts=shown.num_prompts,
            win_rate=_turned(shown.win_rate) if is_second else shown.win_rate,
            length_controlled=_turned(shown.length_controlled) if is_second else shown.length_controlled,
            created_at=shown.created_at,
        )


def _turned(share: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the share of the other side, with its interval."""
    if share is None:
        return None
    return {"value": 1 - share["value"], "low": 1 - share["high"], "high": 1 - share["low"]}
