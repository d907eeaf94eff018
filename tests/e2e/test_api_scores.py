"""Scores over HTTP: asked for, waited for, refused; the lane's part is played by the test."""

import threading
import time
from typing import Any

import pytest
from api_server import RunningApi
from backends import claim, publication

from core.services.attempts import lifecycle
from core.services.requests import requests, scores
from preftune import Client, ScoringFailed

ITEM = {"prompt": "p", "response": "r"}


@pytest.fixture(scope="module")
def job_id(api: RunningApi) -> str:
    job = api.submit(sft="skip")
    held = claim(api.backend)
    lifecycle.finish_succeeded(held, publication(api.backend, held))
    return str(job["id"])


def answer_next(api: RunningApi, results: list[dict[str, Any]] | None) -> None:
    """As a lane does; None: it fails."""
    deadline = time.monotonic() + 60
    while (held := scores.claim(api.backend, 60)) is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    if results is None:
        requests.fail(api.backend, held.lease, "Scoring failed; the worker's log says more.")
    else:
        scores.finish(api.backend, held, results)


def test_asked_for_and_waited_for(api: RunningApi, job_id: str) -> None:
    response = api.http.post(f"/jobs/{job_id}/scores", json={"items": [ITEM]})
    assert response.status_code == 202, response.text
    asked = response.json()
    assert (asked["status"], asked["results"], asked["job_id"]) == ("queued", None, job_id)
    assert response.headers["location"] == f"/jobs/{job_id}/scores/{asked['id']}"
    assert api.http.get(response.headers["location"]).json()["status"] == "queued"
    results = [{"reward": 0.25, "policy_logp": -1.0, "reference_logp": -3.5, "num_tokens": 2}]
    lane = threading.Thread(target=answer_next, args=(api, results))
    lane.start()
    found = api.http.get(response.headers["location"], params={"wait": 25}).json()
    lane.join()
    assert (found["status"], found["results"]) == ("succeeded", results)


def test_the_client_waits_and_says_why_it_failed(api: RunningApi, job_id: str) -> None:
    messages = [{"role": "user", "content": "hello"}]
    pair = {"prompt": messages, "chosen": "a", "rejected": [{"role": "assistant", "content": "b"}]}
    for results in ([{"margin": 1.0}], None):
        lane = threading.Thread(target=answer_next, args=(api, results))
        lane.start()
        with Client(api.url) as client:
            if results is None:
                with pytest.raises(ScoringFailed, match="log"):
                    client.jobs.score(job_id, pairs=[pair])
            else:
                assert client.jobs.score(job_id, pairs=[pair]) == results
        lane.join()


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"items": []},
        {"items": [ITEM], "pairs": []},
        {"items": [{"prompt": "p"}]},
        {"items": [ITEM | {"weight": 1}]},
        {"pairs": [{"prompt": "p", "chosen": [{"role": "nobody", "content": "x"}], "rejected": "r"}]},
        {"items": [ITEM] * 1001},
    ],
)
def test_what_cannot_be_scored_is_refused(api: RunningApi, job_id: str, body: dict[str, Any]) -> None:
    assert api.http.post(f"/jobs/{job_id}/scores", json=body).status_code == 422


def test_jobs_without_a_policy_and_ids_without_scores(api: RunningApi, job_id: str) -> None:
    unfinished = api.submit()["id"]
    refused = api.http.post(f"/jobs/{unfinished}/scores", json={"items": [ITEM]})
    assert (refused.status_code, refused.json()["code"]) == (409, "nothing-to-score-with")
    missing = api.http.get(f"/jobs/{job_id}/scores/score_none")
    assert (missing.status_code, missing.json()["code"]) == (404, "scores-not-found")
    assert api.http.get(f"/jobs/{job_id}/scores/score_none", params={"wait": 3600}).status_code == 422
