"""Children of rounds: what does a stage, how it is started, and what came of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Session

from core.database.tables.rounds import RoundStep
from core.domain.errors import InvalidRequest, NotFound
from core.domain.jobs.job_state import FINAL_STATUSES, Desired, JobStatus
from core.domain.json_numbers import MAX_WHOLE
from core.domain.judging.generations import GenerationRequest, WorkStatus
from core.domain.judging.judgements import JudgementRequest
from core.domain.judging.rounds import CHILD_OF, RoundChild, RoundStage, RoundStepStatus, round_job, sampling_of
from core.domain.request_status import RequestStatus
from core.services.backend import Backend
from core.services.datasets import datasets
from core.services.datasets.versions import versions
from core.services.datasets.versions.versions import Merge, Split, Taking
from core.services.generations import generations
from core.services.generations.generations import GenerationView
from core.services.ids import derived_id
from core.services.jobs import jobs, steering
from core.services.judgements import judgements
from core.services.judgements.judgements import JudgementView
from core.services.requests import scores
from core.services.rounds import drift, pair_files
from core.services.rounds.run import MAX_NAME_CHARS, Run
from core.services.views import JobView

Guard = Callable[[Session], None]
"""Runs at the start of the transaction that creates a child; if it raises, there is none."""
_JUDGED = (
    "source",
    "models",
    "num_pairs",
    "num_failed",
    "num_ties",
    "num_prompts",
    "faults",
    "win_rate",
    "length_controlled",
)


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a child has ended."""

    status: RoundStepStatus = RoundStepStatus.SUCCEEDED
    result: dict[str, Any] = field(default_factory=dict)
    error: str | None = None


def start(backend: Backend, run: Run, step: RoundStep, guard: Guard) -> Ended | None:
    """Create the child, unless it is there; datasets have ended then, of the others None is returned.

    Raises what the child's own creation does, and what `guard` does.
    """
    return _STARTS[step.stage](backend, run, step, guard)


def look(backend: Backend, run: Run, step: RoundStep) -> Ended | None:
    """Return how the child has ended; None: it is under way. Raises NotFound where it is not there."""
    project_id, kind = run.row.project_id, CHILD_OF[step.stage]
    if kind is RoundChild.GENERATION:
        return _of_generation(generations.get(backend, project_id, step.child_id))
    if kind is RoundChild.JUDGEMENT:
        return _of_judgement(judgements.get(backend, project_id, step.child_id))
    if kind is RoundChild.JOB:
        return _of_job(jobs.get(backend, project_id, step.child_id))
    if kind is RoundChild.SCORES:
        return _of_scores(backend, run, step)
    return Ended(result={"dataset_id": datasets.get(backend, project_id, step.child_id).id})


def goes_on(backend: Backend, step: RoundStep) -> bool:
    """Tell whether the child could be paused: it is under way, and neither paused nor about to be. Raises NotFound."""
    kind = CHILD_OF[step.stage]
    if kind is RoundChild.JOB:
        job = jobs.get(backend, step.project_id, step.child_id)
        return job.status not in FINAL_STATUSES and job.desired is Desired.RUN
    if kind is RoundChild.GENERATION:
        generation = generations.get(backend, step.project_id, step.child_id)
        return generation.finished_at is None and not generation.is_held
    if kind is RoundChild.JUDGEMENT:
        judgement = judgements.get(backend, step.project_id, step.child_id)
        return judgement.finished_at is None and not judgement.is_held
    return False


def hold(backend: Backend, step: RoundStep) -> None:
    """Pause the child: a job at a checkpoint, a generation or judgement after its part. Raises NotFound, Conflict."""
    if not _hold_work(backend, step, is_held=True) and CHILD_OF[step.stage] is RoundChild.JOB:
        steering.pause(backend, step.project_id, step.child_id)


def release(backend: Backend, step: RoundStep) -> None:
    """Let a child go on that was paused. Raises NotFound, Conflict."""
    if _hold_work(backend, step, is_held=False) or CHILD_OF[step.stage] is not RoundChild.JOB:
        return
    if jobs.get(backend, step.project_id, step.child_id).desired is Desired.PAUSE:
        steering.resume(backend, step.project_id, step.child_id)


def _hold_work(backend: Backend, step: RoundStep, *, is_held: bool) -> bool:
    """Hold a child that is a generation or judgement, or let it go on; False where it is something else."""
    hold_one = {RoundChild.GENERATION: generations.hold, RoundChild.JUDGEMENT: judgements.hold}.get(
        CHILD_OF[step.stage]
    )
    if hold_one is not None:
        hold_one(backend, step.project_id, step.child_id, is_held=is_held)
    return hold_one is not None


def cancel(backend: Backend, step: RoundStep) -> None:
    """Cancel the child of a step. Raises NotFound, Conflict where it has ended."""
    kind = CHILD_OF[step.stage]
    if kind is RoundChild.GENERATION:
        generations.cancel(backend, step.project_id, step.child_id)
    elif kind is RoundChild.JUDGEMENT:
        judgements.cancel(backend, step.project_id, step.child_id)
    elif kind is RoundChild.JOB:
        steering.cancel(backend, step.project_id, step.child_id)


def is_there(backend: Backend, run: Run, step: RoundStep) -> bool:
    try:
        look(backend, run, step)
    except NotFound:
        return False
    return True


def scored_job(run: Run, step: RoundStep) -> str:
    """Return the job whose models score the answers of a step: its own, or the first one, for the first policy."""
    number = step.round if step.stage is RoundStage.DRIFT else run.trained_before(step.round)[0]
    return run.done(number, RoundStage.TRAIN).child_id


def _split(backend: Backend, run: Run, step: RoundStep, _guard: Guard) -> Ended:
    held_out = run.request.evaluation.held_out_fraction
    wanted = Split(fractions=(held_out, 1 - held_out), seed=run.request.seed)
    parts = versions.split(
        backend, run.row.project_id, run.request.job.dataset_id, wanted, Taking(dataset_id=step.child_id)
    )
    names = {"dataset_id": step.child_id, "train_dataset_id": derived_id(step.child_id, 1)}
    counts = dict(zip(("num_held_out", "num_rows"), (part.num_accepted for part in parts), strict=True))
    return Ended(result={**names, **counts})


def _initial(backend: Backend, run: Run, step: RoundStep, guard: Guard) -> None:
    assert run.request.initial is not None
    _submit(backend, run, step, guard, base_model=run.request.initial.base_model, dataset_id=run.initial_dataset)


def _train(backend: Backend, run: Run, step: RoundStep, guard: Guard) -> None:
    rows = run.find(step.round, RoundStage.MIX) or run.done(step.round, RoundStage.PAIR)
    dataset_id = str(rows.result["dataset_id"])
    _submit(backend, run, step, guard, base_model=run.start_policy(step.round), dataset_id=dataset_id)


def _submit(backend: Backend, run: Run, step: RoundStep, guard: Guard, *, base_model: str, dataset_id: str) -> None:
    job = run.request.job if step.round else run.request.initial
    assert job is not None
    name = run.title(step.round, "policy") if job.name is None else f"{job.name}, round {step.round}"[:MAX_NAME_CHARS]
    named = job.model_copy(update={"name": name})
    request = round_job(named, step.round, base_model=base_model, dataset_id=dataset_id, rounds_id=run.row.id)
    jobs.submit(backend, run.row.project_id, request, job_id=step.child_id, first=guard)


def _generate(backend: Backend, run: Run, step: RoundStep, guard: Guard) -> None:
    wanted, request = run.request.generation, run.request
    _ask(
        backend,
        run,
        step,
        guard,
        GenerationRequest(
            models=[run.policy_before(step.round)],
            dataset_id=run.training_part,
            num_prompts=wanted.num_prompts,
            num_samples=wanted.num_samples,
            sampling=sampling_of(request, step.round),
            seed=(request.seed + step.round) % MAX_WHOLE,
            name=run.title(step.round, "answers"),
            metadata=run.metadata(step.round),
        ),
    )


def _answer(backend: Backend, run: Run, step: RoundStep, guard: Guard) -> None:
    evaluation = run.request.evaluation
    models = [run.done(step.round, RoundStage.TRAIN).child_id]
    if not run.trained_before(step.round):
        models.append(run.first_policy)
    request = GenerationRequest(
        models=models,
        dataset_id=run.held_out_part,
        num_prompts=evaluation.num_prompts,
        sampling=evaluation.sampling or run.request.generation.sampling,
        seed=run.request.seed,
        name=run.title(step.round, "held-out answers"),
        metadata=run.metadata(step.round),
    )
    _ask(backend, run, step, guard, request)


def _ask(backend: Backend, run: Run, step: RoundStep, guard: Guard, request: GenerationRequest) -> None:
    generations.create(backend, run.row.project_id, request, generation_id=step.child_id, first=guard)


def _match(backend: Backend, run: Run, step: RoundStep, _guard: Guard) -> Ended:
    return Ended(result=pair_files.match(backend, run, step.round, step.child_id))


def _pair(backend: Backend, run: Run, step: RoundStep, _guard: Guard) -> Ended:
    return Ended(result=pair_files.pair(backend, run, step.round, step.child_id))


def _mix(backend: Backend, run: Run, step: RoundStep, _guard: Guard) -> Ended:
    return Ended(result=pair_files.mix(backend, run, step.round, step.child_id))


def _gather(backend: Backend, run: Run, step: RoundStep, _guard: Guard) -> Ended:
    trained = run.trained_before(step.round)
    numbers = dict.fromkeys((step.round, trained[-1], trained[0]))
    names = [str(run.done(number, RoundStage.ANSWER).result["dataset_id"]) for number in numbers]
    wanted = Merge(names=names, title=run.title(step.round, "held-out answers beside earlier ones"))
    found = versions.merge(backend, run.row.project_id, wanted, Taking(dataset_id=step.child_id))
    return Ended(result={"dataset_id": found.id, "num_rows": found.num_accepted})


def _judge(backend: Backend, run: Run, step: RoundStep, guard: Guard) -> None:
    answers = run.find(step.round, RoundStage.MATCH) or run.done(step.round, RoundStage.GENERATE)
    request = JudgementRequest(
        dataset_id=str(answers.result["dataset_id"]),
        judge=run.request.judge,
        name=run.title(step.round, "judged answers"),
        metadata=run.metadata(step.round),
    )
    judgements.create(backend, run.row.project_id, request, judgement_id=step.child_id, first=guard)


def _compare(backend: Backend, run: Run, step: RoundStep, guard: Guard) -> None:
    answers = run.find(step.round, RoundStage.GATHER) or run.done(step.round, RoundStage.ANSWER)
    is_first = step.stage is RoundStage.COMPARE_FIRST
    other = run.first_policy if is_first else run.policy_before(step.round)
    request = JudgementRequest(
        dataset_id=str(answers.result["dataset_id"]),
        models=[run.done(step.round, RoundStage.TRAIN).child_id, other],
        judge=run.request.comparing_judge,
        name=run.title(step.round, "against the first policy" if is_first else "against the policy before"),
        metadata=run.metadata(step.round),
    )
    judgements.create(backend, run.row.project_id, request, judgement_id=step.child_id, first=guard)


def _score(backend: Backend, run: Run, step: RoundStep, _guard: Guard) -> None:
    if step.stage is RoundStage.DRIFT_FIRST and run.find(step.round, RoundStage.DRIFT) is None:
        raise InvalidRequest("The new policy has not scored its answers.")
    policy = run.done(step.round, RoundStage.TRAIN).child_id
    dataset_id = str(run.done(step.round, RoundStage.ANSWER).result["dataset_id"])
    items = pair_files.answers_of(backend, run, dataset_id, policy, drift.MAX_ANSWERS)
    if not items:
        raise InvalidRequest("The policy has said nothing to any held-out prompt.")
    scores.create(backend, run.row.project_id, scored_job(run, step), {"items": items}, score_id=step.child_id)


_STARTS: dict[RoundStage, Callable[[Backend, Run, RoundStep, Guard], Ended | None]] = {
    RoundStage.SPLIT: _split,
    RoundStage.INITIAL: _initial,
    RoundStage.GENERATE: _generate,
    RoundStage.MATCH: _match,
    RoundStage.JUDGE: _judge,
    RoundStage.PAIR: _pair,
    RoundStage.MIX: _mix,
    RoundStage.TRAIN: _train,
    RoundStage.ANSWER: _answer,
    RoundStage.GATHER: _gather,
    RoundStage.COMPARE: _compare,
    RoundStage.COMPARE_FIRST: _compare,
    RoundStage.DRIFT: _score,
    RoundStage.DRIFT_FIRST: _score,
}


def _of_generation(view: GenerationView) -> Ended | None:
    counts = {"num_answers": view.num_done - view.num_failed, "num_failed": view.num_failed}
    return _of_work(view.status, view.error, "generation", {"dataset_id": view.dataset_id, **counts})


def _of_judgement(view: JudgementView) -> Ended | None:
    if view.status is WorkStatus.SUCCEEDED and view.num_failed == view.num_pairs:
        told = ", ".join(f"{number} {fault}" for fault, number in view.faults.items()) or "no reason is known"
        return Ended(status=RoundStepStatus.FAILED, error=f"The judge gave no verdict on any pair: {told}.")
    result = {name: getattr(view, name) for name in _JUDGED}
    return _of_work(view.status, view.error, "judgement", result)


def _of_work(status: WorkStatus, error: str | None, what: str, result: dict[str, Any]) -> Ended | None:
    if status in (WorkStatus.QUEUED, WorkStatus.RUNNING):
        return None
    if status is WorkStatus.SUCCEEDED:
        return Ended(result=result)
    if status is WorkStatus.CANCELLED:
        return Ended(status=RoundStepStatus.CANCELLED, error=f"The {what} was cancelled.")
    return Ended(status=RoundStepStatus.FAILED, error=error or f"The {what} has failed.")


def _of_job(view: JobView) -> Ended | None:
    if view.status not in FINAL_STATUSES:
        return None
    if view.status is JobStatus.SUCCEEDED:
        return Ended(result={"results": view.results})
    if view.status is JobStatus.CANCELLED:
        return Ended(status=RoundStepStatus.CANCELLED, error="The job was cancelled.")
    return Ended(status=RoundStepStatus.FAILED, error=view.error.detail if view.error else "The job has failed.")


def _of_scores(backend: Backend, run: Run, step: RoundStep) -> Ended | None:
    project_id = run.row.project_id
    view = scores.get(backend, project_id, scored_job(run, step), step.child_id)
    if view.status in (RequestStatus.QUEUED, RequestStatus.RUNNING):
        return None
    if view.results is None:
        return Ended(status=RoundStepStatus.FAILED, error=view.error or "The answers could not be scored.")
    if step.stage is RoundStage.DRIFT_FIRST:
        own = run.done(step.round, RoundStage.DRIFT)
        policy = scores.get(backend, project_id, scored_job(run, own), own.child_id).results or []
        return _drifted(drift.between(policy, view.results))
    is_against_first = run.request.reference == "first" or not run.trained_before(step.round)
    return _drifted(drift.between(view.results, view.results), key="drift" if is_against_first else "drift_before")


def _drifted(found: dict[str, Any] | None, key: str = "drift") -> Ended:
    if found is None:
        return Ended(status=RoundStepStatus.FAILED, error="No answer has a log-probability under both policies.")
    return Ended(result={key: found})
