"""The judge of rewards: what it asks the scoring lane, and how much at a time."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from core.domain.judging.judgements import Judge
from core.domain.request_status import RequestStatus
from core.services.judgements.judging import JudgementClaim, OpenPair
from core.services.requests import scores
from worker.light import judging
from worker.light.judging import RewardJudge
from worker.light.lane import RequestContext

TOOLS = [{"type": "function", "function": {"name": "look_up"}}]
RESULT = {"chosen_reward": 2.0, "rejected_reward": 1.0, "preference_probability": 0.73}


def pair(position: int, **context: Any) -> OpenPair:
    return OpenPair(position=position, prompt="Why?", first="Because.", second="So.", context=context)


@pytest.fixture
def judge() -> RewardJudge:
    claim = SimpleNamespace(
        lease=SimpleNamespace(id="judge_0123456789abcdefghjkmnpqrs"),
        project_id="default",
        judge=Judge(kind="reward", job_id="job_1"),
    )
    return RewardJudge(cast(JudgementClaim, claim), cast(RequestContext, SimpleNamespace(backend=None)))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[dict[str, Any]]]:
    """Pairs of each request for scores by its id; every one is scored at once."""
    requests: dict[str, list[dict[str, Any]]] = {}

    def create(_backend: object, _project: str, _job: str, request: dict[str, Any], *, score_id: str) -> None:
        requests.setdefault(score_id, request["pairs"])

    def get(_backend: object, _project: str, _job: str, score_id: str) -> SimpleNamespace:
        return SimpleNamespace(status=RequestStatus.SUCCEEDED, results=[RESULT] * len(requests[score_id]), error=None)

    monkeypatch.setattr(scores, "create", create)
    monkeypatch.setattr(scores, "get", get)
    return requests


def test_hundreds_of_pairs_are_one_request_with_their_context(judge: RewardJudge, asked: dict[str, Any]) -> None:
    pairs = [pair(1, tools=TOOLS), *(pair(n) for n in range(2, 401))]
    assert judge.num_pairs >= len(pairs)
    outcomes = judge.judge(pairs).outcomes
    (request,) = asked.values()
    assert len(request) == len(outcomes) == 400
    assert request[:2] == [
        {"prompt": "Why?", "chosen": "Because.", "rejected": "So.", "tools": TOOLS},
        {"prompt": "Why?", "chosen": "Because.", "rejected": "So."},
    ]


def test_long_pairs_are_scored_fewer_at_a_time(
    judge: RewardJudge, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "REWARD_CHARS", 40)  # a pair has 15
    assert [outcome.position for outcome in judge.judge([pair(n) for n in range(1, 6)]).outcomes] == [1, 2]
    monkeypatch.setattr(judging, "REWARD_CHARS", 1)
    assert [outcome.position for outcome in judge.judge([pair(n) for n in range(3, 6)]).outcomes] == [3]
    assert [len(pairs) for pairs in asked.values()] == [2, 1]


def test_what_an_earlier_version_has_asked_is_taken(judge: RewardJudge, asked: dict[str, Any]) -> None:
    judge.judge([pair(1), pair(2)])
    assert [outcome.position for outcome in judge.judge([pair(n) for n in range(1, 6)]).outcomes] == [1, 2]
