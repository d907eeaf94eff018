"""Requests for scores in the light lane: policies are fetched, a process scores, its results are recorded."""

import json
from pathlib import Path
from typing import Any

from core.base_models.directory import get_base_model
from core.domain.errors import DomainError, NotFound
from core.domain.jobs.methods import method_of
from core.domain.jobs.stored_files import StoredTree
from core.services.base_models.sharing import fetch_shared, find_shared
from core.services.requests import scores
from core.services.requests.scores import ScoreClaim, Scorer
from core.storage.trees import TreeDamaged
from worker.light.lane import ProgramKilled, RequestContext, RequestKind, RequestRefused, TryAgain
from worker.processes.start import command_of

SCORER_COMMAND = command_of("scoring")


def score(claim: ScoreClaim, context: RequestContext) -> None:
    try:
        results = score_rows(context, claim.scorer, claim.rows, is_pairs=claim.is_pairs, by_token=claim.by_token)
    except ProgramKilled as killed:
        raise TryAgain from killed
    scores.finish(context.backend, claim, results)


SCORES = RequestKind(scores.claim, score)


def score_rows(
    context: RequestContext, scorer: Scorer, rows: list[dict[str, Any]], *, is_pairs: bool, by_token: bool = False
) -> list[dict[str, Any]]:
    """Score rows with a job's policy or reward model: one result for each, or `error` of one that cannot be scored.

    For every kind of request that scores: it fetches the models, starts the scoring process, and waits for it.

    Args:
        rows: `prompt`, `chosen`, `rejected`, or `prompt`, `response`, as `POST /jobs/{id}/scores` takes them.

    Raises RequestRefused, LaneStopping, StoreUnavailable.
    """
    published = context.fetch(scorer.published, "policy")
    base_model_dir = published  # a reward model has its tokenizer beside it
    if method_of(scorer.spec).publishes_policy:
        base_model_dir = find_base_model(context, scorer.base_model_name, scorer.base_policy)
    task = {
        "spec": scorer.spec,
        "base_model_dir": str(base_model_dir),
        "policy_dir": str(published),
        "sft_dir": None if scorer.sft is None else str(context.fetch(scorer.sft, "sft")),
        "is_pairs": is_pairs,
        "rows": rows,
        "num_threads": context.num_threads,
        "submitted_at": scorer.submitted_at.isoformat(),
        "by_token": by_token,
    }
    (context.work_dir / "scoring.json").write_text(json.dumps(task), encoding="utf-8")
    context.run(SCORER_COMMAND, "Scoring", reads=[base_model_dir])
    results: list[dict[str, Any]] = json.loads((context.work_dir / "results.json").read_text(encoding="utf-8"))
    return results


def find_base_model(context: RequestContext, name: str | None, policy: StoredTree | None) -> Path:
    """Return the folder of a policy, or of this machine's models directory, or the copy that the API has stored.

    Raises RequestRefused, LaneStopping, StoreUnavailable.
    """
    if policy is not None:
        return context.fetch(policy, "base")
    assert name is not None
    try:
        return get_base_model(context.backend.settings.models_dir, name).directory.resolve()
    except NotFound as error:
        shared = find_shared(context.backend.store, name)
        if shared is None:
            raise RequestRefused(error.detail) from None
        try:
            return fetch_shared(context.backend, shared, check=context.check)
        except TreeDamaged as damage:
            raise RequestRefused(f"The stored base model is damaged: {damage}") from None
    except DomainError as error:
        raise RequestRefused(error.detail) from None
