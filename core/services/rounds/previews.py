"""Preview of rounds: what they would do, before anything is made."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import comb

from core.domain.judging.pairing import PairingKind
from core.domain.judging.rounds import RoundsRequest, RoundStage, plan_round, plan_start
from core.services.backend import Backend
from core.services.datasets import datasets
from core.services.datasets.drawing import MAX_ROWS_READ
from core.services.datasets.versions.recipes import Row, part_of
from core.services.rounds import request_checks
from core.services.rounds.held_out import prompt_digest, rows_with_prompts

_NO_ID = "rounds_preview"


@dataclass(frozen=True, kw_only=True)
class PlannedJudgement:
    stage: RoundStage
    num_pairs: int
    """Pairs at most."""
    num_questions: int | None
    """Questions to a language model, each pair in both orders; None of other judges."""
    max_requests: int | None


@dataclass(frozen=True, kw_only=True)
class RoundsPreview:
    before: list[RoundStage]
    first_round: list[RoundStage]
    later_rounds: list[RoundStage]
    num_prompts: int
    num_answers: int
    num_held_out: int
    max_rows: list[int]
    judgements: list[PlannedJudgement]


def preview(backend: Backend, project_id: str, request: RoundsRequest) -> RoundsPreview:
    """Return what `rounds.create` would do with a request. Raises InvalidRequest as it would."""
    checked = request_checks.check(backend, project_id, request, rounds_id=_NO_ID)
    backend.database.read(lambda session: checked.settle(session, project_id))
    num_prompts, num_held_out = _count_prompts(backend, project_id, checked.pinned)
    file = datasets.find_ready(backend, project_id, checked.pinned.job.dataset_id)
    later = plan_round(request, has_earlier=True) if request.num_rounds > 1 else []
    first = plan_round(request, has_earlier=False)
    return RoundsPreview(
        before=plan_start(request),
        first_round=first,
        later_rounds=later,
        num_prompts=num_prompts,
        num_answers=num_prompts * request.generation.num_samples,
        num_held_out=num_held_out,
        max_rows=_max_rows(request, num_prompts, file.num_accepted),
        judgements=_judgements(backend, request, later or first, num_prompts, num_held_out),
    )


def _max_rows(request: RoundsRequest, num_prompts: int, file_rows: int) -> list[int]:
    """Return the most rows that each round can train on."""
    fresh = num_prompts * _rows_per_prompt(request)
    drawn = min(round(request.file_ratio * fresh), file_rows)
    earlier = fresh if request.reference == "first" else 0
    return [fresh + drawn + earlier * before for before in range(request.num_rounds)]


def _rows_per_prompt(request: RoundsRequest) -> int:
    rule, number = request.chosen_pairing.rule(), request.generation.num_samples
    if rule.kind is PairingKind.FILE:
        return min(rule.max_per_prompt, number)
    if rule.kind is PairingKind.ALL:
        return min(rule.max_per_prompt, number // 2 if request.judge.kind == "model" else comb(number, 2))
    return 1


def _judgements(
    backend: Backend, request: RoundsRequest, stages: list[RoundStage], num_prompts: int, num_held_out: int
) -> list[PlannedJudgement]:
    """Return the judgements of a round."""
    samples = request.generation.num_samples
    num_pairs = num_prompts * (samples if request.chosen_pairing.kind is PairingKind.FILE else samples // 2)
    judges = {
        RoundStage.JUDGE: (request.judge, num_pairs),
        RoundStage.COMPARE: (request.comparing_judge, num_held_out),
        RoundStage.COMPARE_FIRST: (request.comparing_judge, num_held_out),
    }
    most = backend.settings.judge_max_requests
    return [
        PlannedJudgement(
            stage=stage,
            num_pairs=number,
            num_questions=2 * number if judge.kind == "model" else None,
            max_requests=min(judge.max_requests or most, most) if judge.kind == "model" else None,
        )
        for stage, (judge, number) in judges.items()
        if stage in stages
    ]


def _count_prompts(backend: Backend, project_id: str, request: RoundsRequest) -> tuple[int, int]:
    """Return how many prompts a round draws, and how many held-out ones are answered."""
    evaluation, wanted = request.evaluation, request.generation.num_prompts
    rows = rows_with_prompts(backend, project_id, request.job.dataset_id, MAX_ROWS_READ)
    if evaluation.dataset_id is not None:
        others = rows_with_prompts(backend, project_id, evaluation.dataset_id, MAX_ROWS_READ)
        return _count(rows, wanted), _count(others, evaluation.num_prompts)
    share, seen, both = evaluation.held_out_fraction, (set[bytes](), set[bytes]()), (evaluation.num_prompts, wanted)
    for row in rows:
        part = part_of(row["prompt"], (share, 1 - share), request.seed)
        if len(seen[part]) < both[part]:
            seen[part].add(prompt_digest(row))
        if all(len(found) >= most for found, most in zip(seen, both, strict=True)):
            break
    held, drawn = (min(len(found), most) for found, most in zip(seen, both, strict=True))
    return drawn, held


def _count(rows: Iterator[Row], most: int) -> int:
    """Count different prompts, up to `most`."""
    seen = set[bytes]()
    for row in rows:
        seen.add(prompt_digest(row))
        if len(seen) >= most:
            break
    return len(seen)
