"""Generations and judgements whose worker is the test itself: the next one is answered, or judged by its rule."""

from collections.abc import Callable
from typing import Any

from core.services.backend import Backend
from core.services.generations import parts
from core.services.judgements import judging
from worker.light.judging import RuleJudge

Answer = Callable[[int, int, int], str | None]
"""Of the places of model, prompt and sample, from 0: what is answered; None: it cannot be."""


def answer_next(backend: Backend, answer: Answer, *, num_parts: int | None = None) -> str:
    """Answer the next generation, at most so many parts of it; it is finished once all are there. Returns its id."""
    claimed = parts.claim(backend, 60)
    assert claimed is not None
    left = [part for part in claimed.parts if part.number not in claimed.done]
    for part in left[:num_parts]:
        texts = [answer(part.model, *place) for place in part.places(claimed.num_samples)]
        assert parts.record(backend, claimed, part, [_answered(text) for text in texts])
    if num_parts is None or num_parts >= len(left):
        parts.finish(backend, claimed)
    return claimed.lease.id


def _answered(text: str | None) -> dict[str, Any]:
    if text is None:
        return {"error": "The prompt is too long."}
    return {"text": text, "finish_reason": "stop", "num_tokens": len(text.split()), "logprob": -1.5}


def judge_next(backend: Backend) -> str:
    """Judge all pairs of the next judgement, whose judge is a rule. Returns its id."""
    claimed = judging.claim(backend, 60)
    assert claimed is not None
    while found := judging.open_pairs(backend, claimed, 500):
        assert judging.record(backend, claimed, RuleJudge(claimed).judge(found))
    judging.finish(backend, claimed)
    return claimed.lease.id
