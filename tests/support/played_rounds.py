"""Rounds whose workers are played by the test: policies that get better, a rule that judges them."""

import json
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from backends import PROJECT, add_dataset, publication
from sqlalchemy import select

from core.database.tables.jobs import Job
from core.datasets.check.check import check_file
from core.datasets.options import CheckOptions
from core.datasets.result import CheckResult
from core.domain.dataset_rows import DatasetKind
from core.domain.judging.generations import Part, answer_seed
from core.domain.judging.rounds import RoundsRequest
from core.services.attempts import lifecycle
from core.services.backend import Backend
from core.services.datasets import contents
from core.services.generations import parts
from core.services.generations.parts import GenerationClaim
from core.services.judgements import judging
from core.services.requests import scores
from core.services.rounds import progress, rounds
from core.services.rounds.view import RoundsView
from core.storage import keys
from worker.light.judging import RuleJudge

ONE_SENTENCE = {"kind": "regex", "pattern": r"^[^.!?]+[.!?]$"}
SKILL_OF_BASE = 0.3
NUM_PROMPTS = 60


def add_file(backend: Backend, dataset_id: str = "ds_1", kind: DatasetKind = DatasetKind.PREFERENCE) -> None:
    """A dataset of many prompts."""
    store_rows(backend, dataset_id, kind)
    add_dataset(backend, dataset_id, kind=kind, num_rows=NUM_PROMPTS)


def store_rows(backend: Backend, dataset_id: str, kind: DatasetKind = DatasetKind.PREFERENCE) -> None:
    rows: list[dict[str, Any]] = []
    for n in range(1, NUM_PROMPTS + 1):
        sides = {"chosen": f"File {n}.", "rejected": f"Worse {n}. And more."}
        if kind is not DatasetKind.PREFERENCE:
            sides = {"response": f"File {n}."}
        rows.append({"line": n, "prompt": f"Question {n}?", **sides})
    text = "".join(json.dumps(row) + "\n" for row in rows)
    backend.store.put_bytes(keys.dataset_rows(PROJECT, dataset_id), text.encode())


def body(**fields: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "job": {"base_model": "tiny", "dataset_id": "ds_1"},
        "judge": ONE_SENTENCE,
        "num_rounds": 2,
        "generation": {"num_prompts": 20, "num_samples": 4},
        "evaluation": {"held_out_fraction": 0.4},
        "stop_early": False,
    }
    return settings | fields


def create(backend: Backend, rounds_id: str | None = None, **fields: Any) -> RoundsView:
    request = RoundsRequest.model_validate(body(**fields))
    return rounds.create(backend, PROJECT, request, rounds_id=rounds_id)


def get(backend: Backend, rounds_id: str) -> RoundsView:
    return rounds.get(backend, PROJECT, rounds_id)


def play(backend: Backend, gain: float = 0.2) -> str | None:
    """Do what a worker does with the next thing that waits for one; return its id. Each trained policy is better."""
    return _generate(backend, gain) or _judge(backend) or _train(backend) or _score(backend)


def play_to_end(backend: Backend, rounds_id: str, *, gain: float = 0.2) -> RoundsView:
    for _ in range(200):
        progress.advance(backend, rounds_id)
        if get(backend, rounds_id).finished_at is not None:
            break
        play(backend, gain)
    return get(backend, rounds_id)


def advance_to(backend: Backend, rounds_id: str, stage: str, number: int = 1) -> RoundsView:
    """Play until that stage is under way."""
    for _ in range(100):
        progress.advance(backend, rounds_id)
        found = get(backend, rounds_id)
        if any((step.stage, step.round, step.status) == (stage, number, "running") for step in found.steps):
            return found
        play(backend)
    raise AssertionError(f"{stage} has not begun")


def check_here(source: Path, options: CheckOptions, folder: Path, **_limits: Any) -> CheckResult:
    """Check a file in this process, whose start is there already."""
    return check_file(source, options, folder)


def skill(backend: Backend, model: str, gain: float) -> float:
    """How often a model says one sentence: more with each job between it and the base model."""
    depth = 0
    while model.startswith("job_"):
        statement = select(Job.spec).where(Job.id == model)
        spec = backend.database.read(lambda session, s=statement: session.scalars(s).one())
        model, depth = spec["base_model"], depth + 1
    return min(1.0, max(0.0, SKILL_OF_BASE + gain * depth))


def _generate(backend: Backend, gain: float) -> str | None:
    claim = parts.claim(backend, 60)
    if claim is None:
        return None
    for part in claim.parts:
        parts.record(backend, claim, part, _answers(claim, part, skill(backend, claim.models[part.model], gain)))
    parts.finish(backend, claim)
    return claim.lease.id


def _answers(claim: GenerationClaim, part: Part, share: float) -> list[dict[str, Any]]:
    found = []
    for prompt, sample in part.places(claim.num_samples):
        seed = answer_seed(claim.sampling.seed, prompt, sample)
        luck = int.from_bytes(blake2b(f"{seed}".encode(), digest_size=4).digest()) / 2**32
        text = f"Answer {seed % 10_000}" + (" here." if luck < share else " here. And more.")
        found.append({"text": text, "finish_reason": "stop", "num_tokens": 3, "logprob": -1.5})
    return found


def _judge(backend: Backend) -> str | None:
    claim = judging.claim(backend, 60)
    if claim is None:
        return None
    while pairs := judging.open_pairs(backend, claim, 100):
        judging.record(backend, claim, RuleJudge(claim).judge(pairs))
    judging.finish(backend, claim)
    return claim.lease.id


def _train(backend: Backend) -> str | None:
    held = lifecycle.claim(backend, worker="worker-1", host="host", device="cpu")
    if held is None:
        return None
    lifecycle.begin(held)
    lifecycle.finish_succeeded(held, publication(backend, held))
    return held.job_id


def _score(backend: Backend) -> str | None:
    claim = scores.claim(backend, 60)
    if claim is None:
        return None
    results = [
        {"reward": 0.1, "policy_logp": -5.0, "reference_logp": -5.5 - place % 2, "num_tokens": 3}
        for place in range(len(claim.rows))
    ]
    scores.finish(backend, claim, results)
    return claim.lease.id


def file_of(backend: Backend, dataset_id: str | None) -> list[dict[str, Any]]:
    assert dataset_id is not None
    text = b"".join(contents.original(backend, PROJECT, dataset_id).chunks)
    return [json.loads(line) for line in text.splitlines()]


def stages(view: RoundsView, number: int) -> Sequence[str]:
    return [step.stage.value for step in view.steps if step.round == number]


def result_of(view: RoundsView, number: int, stage: str) -> dict[str, Any]:
    return next(step.result for step in view.steps if (step.round, step.stage) == (number, stage))


def child_of(view: RoundsView, number: int, stage: str) -> str:
    return next(step.child_id for step in view.steps if (step.round, step.stage) == (number, stage))
