"""`/rounds` as programs use them: creation once, states, faults, steering; with client and command."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api_server import RunningApi, serve
from played_rounds import add_file, body, play_to_end
from typer.testing import CliRunner

from preftune import Client
from preftune.cli.main import app


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    with serve(Path(tmp_path_factory.mktemp("rounds")), sweep_seconds=3600.0) as running:
        add_file(running.backend)
        yield running


def test_rounds_are_made_once_and_steered(api: RunningApi) -> None:
    sent = body(metadata={"team": "a"})
    answers = [api.http.post("/rounds", json=sent, headers={"Idempotency-Key": "r1"}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 201], answers[0].text
    made = answers[0].json()
    assert answers[1].json() == made
    assert answers[0].headers["Location"] == f"/rounds/{made['id']}"
    assert (made["status"], made["metadata"], made["requested"]["job"]["dataset_id"]) == (
        "running",
        {"team": "a"},
        "ds_1@1",
    )
    assert [step["stage"] for step in made["steps"]][:4] == ["split", "generate", "judge", "pair"]
    other = api.http.post("/rounds", json=sent | {"num_rounds": 3}, headers={"Idempotency-Key": "r1"})
    assert other.status_code == 422
    path = f"/rounds/{made['id']}"
    assert [api.http.post(f"{path}/pause").status_code for _ in range(2)] == [202, 200]
    assert [api.http.post(f"{path}/resume").status_code for _ in range(2)] == [202, 200]
    assert [api.http.post(f"{path}/extend", json={"num_rounds": 4}).status_code for _ in range(2)] == [202, 200]
    assert api.http.delete(path).json()["code"] == "rounds-not-deletable"
    assert [api.http.post(f"{path}/cancel").status_code for _ in range(2)] == [202, 200]
    play_to_end(api.backend, made["id"])
    assert api.http.post(f"{path}/resume").json()["code"] == "rounds-ended"
    assert api.http.delete(path).status_code == 204
    assert api.http.get(path).json()["code"] == "rounds-not-found"


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"judge": None}, "/judge"),
        ({"judge": {"kind": "magic"}}, "/judge/kind"),
        ({"num_rounds": 0}, "/num_rounds"),
        ({"best_of": 3}, "/best_of"),
        ({"pairing": {"kind": "all", "margin": -1}}, "/pairing/margin"),
        ({"job": {"base_model": "tiny", "dataset_id": "ds_1", "variant": "kto"}}, "/job/variant"),
        ({"generation": {"num_samples": 5}}, "/generation/num_samples"),
    ],
)
def test_a_fault_is_named_with_its_place(api: RunningApi, change: dict[str, Any], pointer: str) -> None:
    for path in ("/rounds", "/rounds/preview"):
        refused = api.http.post(path, json=body() | change)
        assert refused.status_code == 422, refused.text
        assert [error["pointer"] for error in refused.json()["errors"]] == [pointer]


def test_a_preview_starts_nothing(api: RunningApi) -> None:
    before = api.http.get("/rounds").json()
    answer = api.http.post("/rounds/preview", json=body(file_ratio=0.5))
    assert answer.status_code == 200, answer.text
    found = answer.json()
    counts = [found[name] for name in ("num_prompts", "num_answers", "max_rows")]
    assert counts == [20, 80, [30, 30]]
    assert found["judgements"][0] == {"stage": "judge", "num_pairs": 40, "num_questions": None, "max_requests": None}
    assert api.http.get("/rounds").json() == before
    with Client(str(api.http.base_url)) as client:
        assert client.rounds.preview(**body(file_ratio=0.5)) == found


def test_rounds_with_the_client_and_the_command(api: RunningApi) -> None:
    settings = ["--kind", "regex", "--setting", r"pattern=^[^.!?]+[.!?]$", "--num-rounds", "1", "--name", "mine"]
    request = Path(api.settings.data_dir) / "rounds.json"
    request.write_text('{"generation": {"num_prompts": 20}, "evaluation": {"held_out_fraction": 0.4}}')
    made = run(api, "rounds", "create", "tiny", "ds_1", *settings, "--request", str(request)).strip()
    key = api.http.headers.get("Authorization", "").removeprefix("Bearer ")
    assert "before the first round, split, ds_" in run(api, "rounds", "show", made)
    with Client(str(api.http.base_url), api_key=key) as client:
        assert client.rounds.get(made)["status"] == "running"
        play_to_end(api.backend, made)
        found = client.rounds.wait(made, timeout_seconds=10, poll_seconds=0.01)
        assert (found["status"], found["stop_reason"], len(found["rounds"])) == ("finished", "all_rounds", 1)
        assert [item["id"] for item in client.rounds.list()["data"]][:1] == [made]
    rate = found["rounds"][0]["win_rate"]
    shown = run(api, "rounds", "show", made)
    assert f"{100 * rate['value']:.1f} % ({100 * rate['low']:.1f} to {100 * rate['high']:.1f})" in shown
    assert f"{found['rounds'][0]['drift']['kl']:.2f} nats" in shown
    assert f"ended: all_rounds; best: {found['best_policy']}" in shown
    assert made in run(api, "rounds", "list")
    assert "finished: 1 round done" in run(api, "rounds", "watch", made)
    assert f"{made} running" in run(api, "rounds", "extend", made, "2")
    assert f"{made} paused" in run(api, "rounds", "pause", made)
    assert f"{made} running" in run(api, "rounds", "resume", made)
    assert f"{made} cancelled" in run(api, "rounds", "cancel", made)
    play_to_end(api.backend, made)
    assert "cancelled: " in run(api, "rounds", "watch", made, exit_code=3)
    assert run(api, "rounds", "delete", made, "--yes") == ""
    assert api.http.get(f"/rounds/{made}").status_code == 404


def test_what_the_command_is_given_goes_before_its_file(api: RunningApi) -> None:
    request = Path(api.settings.data_dir) / "other.json"
    request.write_text(
        '{"job": {"base_model": "none", "beta": 0.3}, "judge": {"kind": "length", "prefers": "longer"},'
        ' "num_rounds": 9, "evaluation": {"held_out_fraction": 0.4}}'
    )
    words = ["rounds", "create", "tiny", "ds_1", "--num-rounds", "1", "--request", str(request)]
    made = api.http.get(f"/rounds/{run(api, *words).strip()}").json()
    asked = made["requested"]
    assert (made["num_rounds"], asked["job"]["base_model"], asked["job"]["beta"]) == (1, "tiny", 0.3)
    assert asked["judge"] == {"kind": "length", "prefers": "longer"}
    made = api.http.get(f"/rounds/{run(api, *words, '--setting', 'prefers=shorter').strip()}").json()
    assert made["requested"]["judge"] == {"kind": "length", "prefers": "shorter"}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--kind", "regex", "--setting", "pattern=("], "--setting pattern: is no regular expression"),
        (["--kind", "length", "--pairing", "none"], "--pairing: must be"),
        (["--kind", "length", "--file-ratio", "11"], "--file-ratio: must be at most 10"),
        ([], "--kind: no language model is configured"),
        (["--kind", "length", "--request", "{}"], "--request job.max_length: must be at least 8"),
    ],
)
def test_a_refusal_names_what_was_given(api: RunningApi, tmp_path: Path, options: list[str], told: str) -> None:
    request = tmp_path / "request.json"
    request.write_text('{"job": {"max_length": 4}}')
    words = [str(request) if word == "{}" else word for word in options]
    command = ["rounds", "create", "tiny", "ds_1", *words, "--url", str(api.http.base_url)]
    result = CliRunner().invoke(app, command, env={"COLUMNS": "300"})
    assert (result.exit_code, told in result.stderr) == (1, True), result.output


def run(api: RunningApi, *words: str, exit_code: int = 0) -> str:
    result = CliRunner().invoke(app, [*words, "--url", str(api.http.base_url)], env={"COLUMNS": "300"})
    assert result.exit_code == exit_code, result.output
    lines = result.stdout.splitlines(keepends=True)
    return "".join(line for line in lines if "\x1b" not in line)  # those are of the server in this process
