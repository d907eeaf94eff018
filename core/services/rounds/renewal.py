"""Stages that are done again once rounds have failed: the one that failed, and what it needs and is not there."""

from collections.abc import Iterator

from sqlalchemy.orm import Session

from core.database.repositories import datasets as dataset_rows
from core.database.repositories import jobs as job_rows
from core.database.repositories import owned
from core.database.tables.judgements import Judgement
from core.database.tables.rounds import RoundStep
from core.domain.judging.rounds import OPTIONAL_STAGES, RoundStage, RoundStepStatus
from core.services.ids import derived_id, make_id
from core.services.rounds.run import Run

_NEEDS: dict[RoundStage, tuple[RoundStage, ...]] = {
    RoundStage.MATCH: (RoundStage.GENERATE,),
    RoundStage.JUDGE: (RoundStage.MATCH, RoundStage.GENERATE),
    RoundStage.PAIR: (RoundStage.JUDGE,),
    RoundStage.MIX: (RoundStage.PAIR,),
    RoundStage.TRAIN: (RoundStage.MIX, RoundStage.PAIR),
    RoundStage.ANSWER: (RoundStage.TRAIN,),
    RoundStage.GATHER: (RoundStage.ANSWER,),
    RoundStage.COMPARE: (RoundStage.GATHER, RoundStage.ANSWER),
    RoundStage.COMPARE_FIRST: (RoundStage.GATHER, RoundStage.ANSWER),
}
"""What a stage reads of its own round: the first of these that the round has."""
_OF_FILE = frozenset({RoundStage.INITIAL, RoundStage.GENERATE, RoundStage.MATCH, RoundStage.MIX, RoundStage.ANSWER})
"""Stages that read a part of the file."""


def renew_failed(session: Session, run: Run, suffix: str) -> None:
    """Have what has failed done again by new children, after what it needs and somebody has deleted.

    Every stage determines what it makes, so what was made of a deleted dataset stays good. Policies of earlier rounds
    are not trained again.
    """
    for step in run.steps:
        if step.stage not in OPTIONAL_STAGES and step.status in (RoundStepStatus.FAILED, RoundStepStatus.CANCELLED):
            _renew(session, run, step, suffix)


def _renew(session: Session, run: Run, step: RoundStep, suffix: str) -> None:
    missing = [source for source in _sources(run, step) if not _is_there(session, run, source)]
    step.earlier = {"ids": [*step.earlier["ids"], step.child_id]}
    step.child_id = derived_id(make_id(step.child_id.partition("_")[0], suffix), step.position)
    step.status, step.result, step.error_detail = RoundStepStatus.WAITING, {}, None
    step.started_at = step.finished_at = None
    step.is_held = False
    for source in missing:
        if source.status is RoundStepStatus.SUCCEEDED:  # else another one that needs it has renewed it
            _renew(session, run, source, suffix)


def _sources(run: Run, step: RoundStep) -> Iterator[RoundStep]:
    """Yield the stages that a stage reads, which have succeeded."""
    own = (run.find(step.round, stage) for stage in _NEEDS.get(step.stage, ()))
    found = [next((source for source in own if source is not None), None)]
    if step.stage in _OF_FILE:
        found.append(run.find(0, RoundStage.SPLIT))
    trained = run.trained_before(step.round)
    if step.stage is RoundStage.GATHER:
        found += [run.find(number, RoundStage.ANSWER) for number in {trained[0], trained[-1]}]
    if step.stage is RoundStage.MIX and run.request.reference == "first":
        found += [run.find(number, RoundStage.PAIR) for number in trained]
    yield from (source for source in found if source is not None)


def _is_there(session: Session, run: Run, step: RoundStep) -> bool:
    """Tell whether what a stage has made is still there."""
    project_id = run.row.project_id
    if step.stage is RoundStage.JUDGE:
        return owned.find(session, Judgement, project_id, step.child_id) is not None
    if step.stage is RoundStage.TRAIN:
        return step.round != run.last_number or job_rows.find_job(session, project_id, step.child_id) is not None
    names = (step.result.get(name) for name in ("dataset_id", "train_dataset_id"))
    return all(dataset_rows.find_dataset(session, project_id, name) is not None for name in names if name)
