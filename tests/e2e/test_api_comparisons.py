"""Comparisons over HTTP: of a sweep and of any jobs, as JSON, text and one HTML file."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from api_server import RunningApi, pairs
from backends import BASE_MODEL
from compared_jobs import add_checkpoint, add_judgement, make_sweep, publish
from played_jobs import start
from sqlalchemy import event
from sqlalchemy.orm import Session

from core.database.columns import database_now
from core.database.tables.scores import ScoreRequest
from core.domain.jobs.job_state import Stage
from core.domain.policy_names import policy_name
from core.domain.request_status import RequestStatus
from preftune import Client
from preftune.cli.changed_pairs import score_changed

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def sweep_id(api: RunningApi) -> str:
    return make_sweep(api, HOSTILE)


def test_a_sweep_is_compared_and_the_nearest_of_the_best_is_recommended(api: RunningApi, sweep_id: str) -> None:
    found = api.http.get(f"/sweeps/{sweep_id}/comparison").json()
    best, near, worse = (job["job_id"] for job in found["jobs"])
    assert [job["beta"] for job in found["jobs"]] == [0.05, 0.1, 0.5]
    assert [[p["step"], p["kl"], p["is_published"]] for p in found["jobs"][0]["points"]] == [
        [5, 4.0, False],
        [10, 8.0, True],
    ]
    assert [(p["job_id"], p["step"]) for p in found["front"]] == [
        (worse, 5),
        (worse, 10),
        (near, 5),
        (near, 10),
        (best, 10),
    ]
    assert found["recommended"]["job_id"] == near
    assert "3 nats from the reference instead of 8" in found["recommended"]["reason"]
    assert "-0.025" in found["recommended"]["reason"]
    assert found["against"] == best
    nearly, far = found["differences"]
    assert (nearly["job_id"], nearly["num_pairs"], nearly["gained"], nearly["lost"]) == (near, 40, 0, 1)
    assert nearly["reward_accuracy"]["value"] == pytest.approx(-1 / 40)
    assert nearly["changed"] == [{"line": 30, "place": 1, "num_of_line": 1, "margin": -0.25, "margin_of_other": 0.5}]
    assert (far["lost"], far["reward_accuracy"]["high"] < 0) == (20, True)
    assert [(item["name"], list(item["values"].values())) for item in found["settings"]] == [("beta", [0.05, 0.1, 0.5])]
    assert found["data"] == []
    assert found["code"] == [{"name": "torch", "values": {best: "2.13.0", near: "2.13.0", worse: "2.12.0"}}]
    other = api.http.get(f"/sweeps/{sweep_id}/comparison", params={"against": worse}).json()
    assert [item["gained"] for item in other["differences"]] == [20, 19]
    stranger = api.http.get(f"/sweeps/{sweep_id}/comparison", params={"against": "job_none"})
    assert stranger.status_code == 422


def test_every_pair_of_a_ranked_list_counts(api: RunningApi) -> None:
    ids = []
    for margins in ({1: [0.5, 0.5, 0.5], 2: [0.5]}, {1: [0.5, -0.25, 0.5], 2: [0.5, 0.5]}):
        held = start(api, priority=100)
        publish(api.backend, held, margins, kl=1.0)
        ids.append(held.job_id)
    found = api.http.get(f"/jobs/{ids[0]}/comparison", params={"others": ids[1]}).json()
    (item,) = found["differences"]
    assert (item["num_pairs"], item["gained"], item["lost"]) == (3, 0, 1)
    assert item["changed"] == [{"line": 1, "place": 2, "num_of_line": 3, "margin": -0.25, "margin_of_other": 0.5}]
    assert "no other one is both nearer" in found["recommended"]["reason"]
    assert "1, pair 2 of 3" in api.http.get(f"/jobs/{ids[0]}/comparison.html", params={"others": ids[1]}).text


def test_a_comparison_is_text_and_one_html_file_without_foreign_markup(api: RunningApi, sweep_id: str) -> None:
    text = api.http.get(f"/sweeps/{sweep_id}/comparison.txt")
    assert text.headers["content-type"].startswith("text/plain")
    for words in ("Recommended", "Paired differences from", "Settings that differ", "-0.0250", "2.12.0"):
        assert words in text.text
    lines = [re.split(r"  +", line.strip()) for line in text.text.splitlines()]
    evaluations = [line for line in lines if line[1:2] == ["5"]]
    assert [line[2:4] for line in evaluations] == [["4", "0.375"], ["1.5", "0.3625"], ["0.5", "0.125"]]
    assert [f"{HOSTILE} 2 (beta 0.1)", "30", "the other one", "-0.2500", "+0.5000"] in lines
    assert len([line for line in lines if line[2:3] == ["the other one"]]) == 21
    page = api.http.get(f"/sweeps/{sweep_id}/comparison.html")
    assert page.headers["content-disposition"].startswith(f'attachment; filename="comparison-{sweep_id}.html"')
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "<svg" in page.text
    assert "β 0.05" in page.text
    assert "<script" not in page.text
    assert "&lt;script&gt;" in page.text
    assert page.text.count("Pairs that changed sides") == 2


def test_pairs_that_were_scored_by_token_are_coloured_in_the_report(api: RunningApi) -> None:
    dataset_id = api.http.post("/datasets", content=pairs(40), params={"name": "rows.jsonl"}).json()["id"]
    sweep_id = make_sweep(api, "Coloured", dataset_id=dataset_id)
    found = api.http.get(f"/sweeps/{sweep_id}/comparison").json()
    with Client(api.url) as client, scores_at_once(api):
        score_changed(client, found, 1)
    page = api.http.get(f"/sweeps/{sweep_id}/comparison.html").text
    assert page.count("Line 30, each token") == 1
    assert page.count("<span class='up-2' title='+1.00'>It is 30.</span>") == 2
    assert page.count("<span class='down-4' title='-3.00'>I guess &lt;b&gt;.</span>") == 2
    assert ".down-4{background:" in page


@contextmanager
def scores_at_once(api: RunningApi) -> Iterator[None]:
    """Requests for scores are answered as they come; tests/numerics/test_scores.py has them for real."""

    def answer(session: Session, *_: object) -> None:
        tokens = [{"text": "It is 30.", "log_ratio": 1.0}], [{"text": "I guess <b>.", "log_ratio": -3.0}]
        for row in session.new:
            if isinstance(row, ScoreRequest):
                assert [item["response"] for item in row.request["items"]] == ["It is 30.", "I guess 29."]
                row.status, row.finished_at = RequestStatus.SUCCEEDED, database_now()
                row.results = {"results": [{"tokens": one} for one in tokens]}

    event.listen(Session, "before_flush", answer)
    try:
        yield
    finally:
        event.remove(Session, "before_flush", answer)


def test_any_jobs_are_compared_whatever_state_they_are_in(api: RunningApi, sweep_id: str) -> None:
    members = [member["job_id"] for member in api.http.get(f"/sweeps/{sweep_id}").json()["members"]]
    running = start(api, beta=0.2)
    found = api.http.get(f"/jobs/{members[1]}/comparison", params={"others": f"{members[0]},{running.job_id}"}).json()
    assert [job["job_id"] for job in found["jobs"]] == [members[1], members[0], running.job_id]
    assert (found["against"], found["sweep_id"]) == (members[1], None)
    assert [item["reason"] is None for item in found["differences"]] == [True, False]
    assert "published no policy" in found["differences"][1]["reason"]
    assert {item["name"] for item in found["settings"]} >= {"beta"}
    for suffix in ("", ".txt", ".html"):
        unknown = api.http.get(f"/jobs/{members[0]}/comparison{suffix}", params={"others": "job_none"})
        assert unknown.json()["code"] == "job-not-found"
    many = api.http.get(f"/jobs/{members[0]}/comparison", params={"others": ",".join(f"job_{n}" for n in range(64))})
    assert (many.status_code, "1 to 64 jobs" in many.json()["detail"]) == (422, True)


def test_jobs_without_rewards_are_compared_by_what_there_is(api: RunningApi) -> None:
    job: dict[str, Any] = api.submit(method="supervised")
    found = api.http.get(f"/jobs/{job['id']}/comparison").json()
    assert (found["against"], found["recommended"]["job_id"], found["front"]) == (job["id"], None, [])
    assert "No job has published" in found["recommended"]["reason"]


def test_win_rates_of_the_members_stand_beside_their_divergence(api: RunningApi, sweep_id: str) -> None:
    best, near, worse = (member["job_id"] for member in api.http.get(f"/sweeps/{sweep_id}").json()["members"])
    early = add_checkpoint(api.backend, near, 5)
    of_sft = add_checkpoint(api.backend, near, 5, Stage.SFT)
    add_judgement(api.backend, (best, BASE_MODEL), 0.25)
    for models, share in (
        ((best, BASE_MODEL), 0.75), ((near, BASE_MODEL), 0.875), ((BASE_MODEL, worse), 0.625),
        ((f"{near}@{early}", BASE_MODEL), 0.5), ((f"{near}@{of_sft}", BASE_MODEL), 0.5),
        (("job_gone", BASE_MODEL), 0.5),
        ((best, f"{best}@sft"), 0.75),
        ((policy_name("m", "p", "s", near, step=10), policy_name("m", "p", None, near) + "@sft"), 0.625),
    ):  # fmt: skip
        newest = add_judgement(api.backend, models, share)
    add_judgement(api.backend, (worse, BASE_MODEL), 0.5, {"kind": "regex", "pattern": HOSTILE})
    found = api.http.get(f"/sweeps/{sweep_id}/comparison").json()
    plain, own, by_pattern = found["win_rates"]
    assert (plain["judge"], plain["opponent"], plain["source"]) == ({"kind": "length"}, BASE_MODEL, "ds_answers")
    assert [
        (p["job_id"], p["step"], p["kl"], p["win_rate"]["value"], p["is_published"], p["is_on_front"])
        for p in plain["points"]
    ] == [
        (best, 10, 8.0, 0.75, True, False),
        (near, 5, 1.5, 0.5, False, True),
        (near, 10, 3.0, 0.875, True, True),
        (worse, 10, 1.0, 0.375, True, True),
    ]
    assert plain["points"][3]["win_rate"] == {"value": 0.375, "low": 0.25, "high": 0.5}
    assert (own["opponent"], [p["win_rate"]["value"] for p in own["points"]]) == ("@sft", [0.75, 0.625])
    assert own["points"][1]["judgement_id"] == newest
    assert [(p["job_id"], p["num_prompts"], p["num_failed"]) for p in by_pattern["points"]] == [(worse, 40, 1)]
    text = api.http.get(f"/sweeps/{sweep_id}/comparison.txt").text
    assert f"Win rate against {BASE_MODEL}, judged by length, on ds_answers" in text
    assert "Win rate against their own SFT policies, judged by length, on ds_answers" in text
    assert "0.2500 to 0.5000  40" in text
    page = api.http.get(f"/sweeps/{sweep_id}/comparison.html").text
    assert page.count("<title>Win rate against divergence from the reference</title>") == 3
    assert "<script" not in page
    alone = api.http.get(f"/jobs/{worse}/comparison", params={"others": near}).json()
    assert [len(table["points"]) for table in alone["win_rates"]] == [3, 1, 1]
