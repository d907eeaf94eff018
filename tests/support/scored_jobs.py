"""Requests for scores of jobs that the real trainer has made, answered by a light lane."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from backends import PROJECT
from judged_pairs import judged
from toy_jobs import await_end
from trained_jobs import add_rows

from core.domain.dataset_rows import DatasetKind
from core.services.backend import Backend
from core.services.datasets import datasets
from core.services.judgements import judgements
from core.services.requests import scores
from worker.drain import Drain
from worker.light.lane import LightLane
from worker.light.scores import SCORES
from worker.scratch import WorkerScratch

SECONDS = 200
NUM_ANSWERS = 20


def ask(backend: Backend, job_id: str, **request: Any) -> list[dict[str, Any]]:
    asked = scores.create(backend, PROJECT, job_id, request)
    answer = await_end(lambda: scores.get(backend, PROJECT, job_id, asked.id), SECONDS)
    assert answer.status == "succeeded", answer
    assert answer.results is not None
    return answer.results


@contextmanager
def light_lane(backend: Backend) -> Iterator[None]:
    drain, scratch = Drain(5), WorkerScratch(backend.settings.scratch_dir)
    lane = LightLane(backend, drain, scratch, 1, [SCORES])
    lane.start()
    try:
        yield
    finally:
        drain.begin()
        lane.join()
        scratch.close()


ODD_ANSWERS = [("The same.", "The same."), ("", "Bad!"), ("long " * 100, "Bad!")]
"""A tie, and two that cannot be scored."""


def check_judgement(backend: Backend, job_id: str) -> None:
    """Judge answers by the job's rewards: each verdict is what the same pair's scores say."""
    answers = [(f"Good answer {n}.", f"Bad {n}!")[:: 1 if n % 3 else -1] for n in range(NUM_ANSWERS)] + ODD_ANSWERS
    pairs = [{"prompt": f"Question {n}?", "chosen": new, "rejected": old} for n, (new, old) in enumerate(answers)]
    rows = [
        {"line": line, "prompt": pair["prompt"], "response": pair[side], "model": model}
        for line, (pair, side, model) in enumerate(
            ((pair, *named) for pair in pairs for named in (("chosen", "new"), ("rejected", "old"))), 1
        )
    ]
    add_rows(backend, rows, "ds_answers", kind=DatasetKind.RESPONSES)
    with light_lane(backend):
        scored = ask(backend, job_id, pairs=pairs)
        found = judged(backend, {"kind": "reward", "job_id": job_id}, dataset_id="ds_answers", models=["new", "old"])
    told = judgements.list_pairs(backend, PROJECT, found.id, limit=100).data
    assert len(told) == len(pairs)
    for pair, own, score in zip(told, pairs, scored, strict=True):
        assert (pair.prompt, pair.first, pair.second) == (own["prompt"], own["chosen"], own["rejected"])
        if "error" in score:
            assert (pair.verdict, pair.detail) == (None, {"fault": "not_scored", "reason": score["error"]})
        elif pair.first == pair.second:
            assert (pair.verdict, pair.confidence, score["margin"]) == ("tie", 1.0, 0.0)
            assert pair.detail["scores"] == pytest.approx([score["chosen_reward"]] * 2, abs=1e-4)
        else:
            # Other rows stand in the same batch, which rounds otherwise.
            assert pair.detail["scores"] == pytest.approx([score["chosen_reward"], score["rejected_reward"]], abs=1e-4)
            share = score["preference_probability"]
            assert pair.confidence == pytest.approx(max(share, 1 - share), abs=1e-4)
            assert pair.verdict == ("first" if pair.detail["scores"][0] > pair.detail["scores"][1] else "second")
            assert abs(score["margin"]) < 1e-4 or pair.verdict == ("first" if score["margin"] > 0 else "second")
    verdicts = Counter(pair.verdict for pair in told)
    assert (found.num_failed, found.num_ties, verdicts[None], verdicts["tie"]) == (2, 1, 2, 1)
    assert found.win_rate is not None
    assert found.win_rate["value"] == pytest.approx((verdicts["first"] + 0.5) / (len(pairs) - 2))
    made = datasets.get(backend, PROJECT, str(found.dataset_id))
    assert made.num_accepted == verdicts["first"] + verdicts["second"]
