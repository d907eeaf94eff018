"""`/generations` and `/judgements` as programs use them: creation once, states, faults; with client and command."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api_server import RunningApi, serve
from backends import BASE_MODEL, PROJECT, add_dataset
from played_judging import judge_next
from typer.testing import CliRunner

from core.domain.dataset_rows import DatasetKind
from core.storage import keys
from preftune import Client
from preftune.cli.main import app


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    with serve(Path(tmp_path_factory.mktemp("judging"))) as running:
        rows = [
            {"line": 1 + n, "prompt": f"Q {n // 2}?", "response": "x" * (n + 1), "model": "ab"[n % 2]} for n in range(8)
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        running.backend.store.put_bytes(keys.dataset_rows(PROJECT, "ds_r"), text.encode())
        add_dataset(running.backend, "ds_r", kind=DatasetKind.RESPONSES, num_rows=8)
        yield running


def test_a_generation_is_made_once_and_steered(api: RunningApi) -> None:
    body = {"models": [BASE_MODEL], "prompts": ["Why?"], "num_samples": 2, "metadata": {"team": "a"}}
    answers = [api.http.post("/generations", json=body, headers={"Idempotency-Key": "g1"}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 201]
    made = answers[0].json()
    assert answers[1].json() == made
    assert answers[0].headers["Location"] == f"/generations/{made['id']}"
    assert (made["status"], made["num_answers"], made["metadata"]) == ("queued", 2, {"team": "a"})
    assert (
        api.http.post("/generations", json=body | {"num_samples": 3}, headers={"Idempotency-Key": "g1"}).status_code
        == 422
    )
    assert [item["id"] for item in api.http.get("/generations").json()["data"]] == [made["id"]]
    path = f"/generations/{made['id']}"
    refused = api.http.delete(path)
    assert (refused.status_code, refused.json()["code"]) == (409, "generation-not-deletable")
    assert [api.http.post(f"{path}/cancel").status_code for _ in range(2)] == [202, 200]
    assert api.http.delete(path).status_code == 204
    assert api.http.get(path).json()["code"] == "generation-not-found"


@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        ("/generations", {"models": [BASE_MODEL]}, ""),
        ("/generations", {"models": [BASE_MODEL] * 2, "prompts": ["x"]}, ""),
        ("/generations", {"models": ["none"], "prompts": ["x"]}, "/models/0"),
        ("/generations", {"models": [BASE_MODEL], "prompts": ["x"], "best_of": 3}, "/best_of"),
        ("/judgements", {"dataset_id": "ds_r", "judge": {"kind": "magic"}}, "/judge/kind"),
        ("/judgements", {"dataset_id": "ds_r", "judge": {"kind": "regex"}}, "/judge"),
        ("/judgements", {"dataset_id": "ds_r", "judge": {"kind": "model"}}, "/judge/kind"),
        ("/judgements", {"dataset_id": "ds_r", "models": ["a", "c"], "judge": {"kind": "length"}}, "/models"),
    ],
)
def test_a_fault_is_named_with_its_place(api: RunningApi, path: str, body: dict[str, Any], pointer: str) -> None:
    refused = api.http.post(path, json=body)
    assert refused.status_code == 422, refused.text
    assert [error["pointer"] for error in refused.json()["errors"]] == [pointer]


def test_a_judgement_with_the_client_and_the_command(api: RunningApi) -> None:
    with Client(
        str(api.http.base_url), api_key=api.http.headers.get("Authorization", "").removeprefix("Bearer ")
    ) as client:
        made = client.judgements.create(dataset_id="ds_r", judge={"kind": "length"}, models=["a", "b"], name="short")
        judge_next(api.backend)
        found = client.judgements.wait(made["id"], timeout_seconds=10, poll_seconds=0.01)
        assert (found["status"], found["win_rate"]["value"], found["num_prompts"]) == ("succeeded", 1.0, 4)
        assert [pair["verdict"] for pair in client.judgements.pairs(made["id"])["data"]] == ["first"] * 4
        same = client.judgements.agreement(made["id"], against=made["id"])
        assert (same["num_pairs"], same["value"], same["kappa"]) == (4, 1.0, None)
        assert client.datasets.get(found["dataset_id"])["kind"] == "preference"
        assert [item["id"] for item in client.judgements.list()["data"]] == [made["id"]]
    shown = run(api, "judge", "show", made["id"])
    assert "a against b: 100.0 %" in shown
    assert f"dataset {found['dataset_id']}" in shown
    assert made["id"] in run(api, "judge", "list")
    assert run(api, "judge", "delete", made["id"], "--yes") == ""
    assert api.http.get(f"/judgements/{made['id']}").status_code == 404
    assert api.http.get(f"/datasets/{found['dataset_id']}").status_code == 200


def test_a_generation_with_the_command(api: RunningApi) -> None:
    generation = run(api, "generate", "start", BASE_MODEL, "--dataset", "ds_r", "--num-samples", "2").strip()
    assert api.http.get(f"/generations/{generation}").json()["num_answers"] == 8
    assert "queued: 0 of 8 answers" in run(api, "generate", "show", generation)
    assert f"{generation} cancelled" in run(api, "generate", "cancel", generation)


def test_what_the_command_is_given_goes_before_its_file(api: RunningApi) -> None:
    request = Path(api.settings.data_dir) / "judgement.json"
    request.write_text('{"judge": {"kind": "length", "prefers": "longer"}, "models": ["b", "a"], "num_pairs": 3}')
    words = ["judge", "start", "ds_r", "--request", str(request), "--models", "a,b"]
    for given, prefers in (([], "longer"), (["--setting", "prefers=shorter"], "shorter")):
        judgement = run(api, *words, *given).strip()
        asked = api.http.get(f"/judgements/{judgement}").json()["requested"]
        assert (asked["judge"]["kind"], asked["judge"]["prefers"]) == ("length", prefers)
        assert (asked["models"], asked["num_pairs"]) == (["a", "b"], 3)
        assert f"{judgement} cancelled" in run(api, "judge", "cancel", judgement)


@pytest.mark.parametrize(
    ("text", "told"),
    [("{", "cannot be read as JSON"), ("[]", "takes a JSON object")],
)
def test_a_file_that_is_no_request_is_refused(api: RunningApi, tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "request.json").write_text(text)
    for command in (["judge", "start", "ds_r"], ["generate", "start", BASE_MODEL]):
        words = [*command, "--request", str(tmp_path / "request.json"), "--url", str(api.http.base_url)]
        result = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
        assert (result.exit_code, told in result.stderr) == (2, True), result.output


def run(api: RunningApi, *words: str) -> str:
    result = CliRunner().invoke(app, [*words, "--url", str(api.http.base_url)])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines(keepends=True)
    return "".join(line for line in lines if "\x1b" not in line)  # those are of the server in this process
