"""Requests for scores: leases, tries and limits, on both databases."""

import json
from typing import Any

import pytest
from backends import PROJECT, add_dataset, claim, publication, submit
from sqlalchemy import text

from core.services.attempts import lifecycle
from core.services.backend import Backend
from core.services.jobs import jobs
from core.services.requests import requests, scores
from core.storage import keys

ITEMS: dict[str, Any] = {"items": [{"prompt": "p", "response": "r"}]}


@pytest.fixture
def job_id(backend: Backend) -> str:
    add_dataset(backend)
    job_id = submit(backend, sft="skip").id
    held = claim(backend)
    lifecycle.finish_succeeded(held, publication(backend, held))
    return job_id


def end_leases(backend: Backend) -> None:
    backend.database.write(
        lambda session: session.execute(text("UPDATE score_requests SET lease_expires_at = created_at"))
    )


def test_a_request_is_claimed_once_and_answered(backend: Backend, job_id: str) -> None:
    asked = scores.create(backend, PROJECT, job_id, ITEMS)
    assert (asked.status, asked.results) == ("queued", None)
    held = scores.claim(backend, 60)
    assert held is not None
    assert (held.lease.id, held.is_pairs, held.rows) == (asked.id, False, ITEMS["items"])
    assert held.scorer.base_model_name == "tiny"
    assert held.scorer.published.prefix.startswith(keys.attempt_prefix(PROJECT, job_id, "1-").rstrip("/"))
    assert held.scorer.sft is None
    assert scores.claim(backend, 60) is None
    scores.finish(backend, held, [{"reward": 0.5}])
    answer = scores.get(backend, PROJECT, job_id, asked.id)
    assert (answer.status, answer.results, answer.error) == ("succeeded", [{"reward": 0.5}], None)


def test_a_lane_that_is_gone_is_followed_by_another_which_alone_may_answer(backend: Backend, job_id: str) -> None:
    asked = scores.create(backend, PROJECT, job_id, ITEMS)
    first = scores.claim(backend, 60)
    end_leases(backend)
    second = scores.claim(backend, 60)
    assert first is not None
    assert second is not None
    assert not requests.renew(backend, first.lease, 60)
    scores.finish(backend, first, [{"reward": 1.0}])
    assert scores.get(backend, PROJECT, job_id, asked.id).status == "running"
    assert requests.renew(backend, second.lease, 60)
    scores.finish(backend, second, [{"reward": 2.0}])
    assert scores.get(backend, PROJECT, job_id, asked.id).results == [{"reward": 2.0}]


def test_what_ends_every_lane_is_given_up_and_a_drain_costs_nothing(backend: Backend, job_id: str) -> None:
    asked = scores.create(backend, PROJECT, job_id, ITEMS)
    for _ in range(2 * requests.MAX_TRIES):
        held = scores.claim(backend, 60)
        assert held is not None
        requests.give_back(backend, held.lease)
    for _ in range(requests.MAX_TRIES):
        assert scores.claim(backend, 60) is not None
        end_leases(backend)
    assert scores.claim(backend, 60) is None
    answer = scores.get(backend, PROJECT, job_id, asked.id)
    assert answer.status == "failed"
    assert answer.error is not None
    assert "each time" in answer.error


def test_without_the_policy_before_dpo_there_are_no_rewards(backend: Backend) -> None:
    add_dataset(backend)
    job_id = submit(backend).id
    held = claim(backend)
    made = publication(backend, held)
    backend.store.put_bytes(made.tree.prefix + "evaluation.json", json.dumps({"sft_digest": "0" * 64}).encode())
    lifecycle.finish_succeeded(held, made)
    asked = scores.create(backend, PROJECT, job_id, ITEMS)
    assert scores.claim(backend, 60) is None
    answer = scores.get(backend, PROJECT, job_id, asked.id)
    assert answer.status == "failed"
    assert answer.error is not None
    assert "not kept" in answer.error


def test_limits_and_what_is_not_there(backend: Backend, job_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "MAX_WAITING", 2)
    for _ in range(2):
        scores.create(backend, PROJECT, job_id, ITEMS)
    with pytest.raises(scores.TooManyScoreRequests):
        scores.create(backend, PROJECT, job_id, ITEMS)
    with pytest.raises(scores.ScoresNotFound):
        scores.get(backend, PROJECT, job_id, "score_none")
    unfinished = submit(backend).id
    with pytest.raises(scores.NothingToScoreWith):
        scores.create(backend, PROJECT, unfinished, ITEMS)
    jobs.delete(backend, PROJECT, job_id)
    assert scores.claim(backend, 60) is None
