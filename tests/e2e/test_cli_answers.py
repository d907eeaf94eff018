"""The command line and the client on answers: chat, arenas, feedback, against a service whose runner is scripted."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from api_server import RunningApi, pairs, serve
from scripted_runner import ScriptedRunner
from tiny_models import make_tiny_model
from typer.testing import CliRunner, Result

from cli.main import app
from preftune import ApiError, Client

MODEL = "talker"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    folder = Path(tmp_path_factory.mktemp("answers"))
    make_tiny_model(folder / "models" / MODEL)
    runner = ScriptedRunner(answers=[(40, 41, 42, 2), (50, 51, 2)])
    before = structlog.get_config()
    with serve(folder, runner=runner) as running, Path(os.devnull).open("w") as nowhere:
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(nowhere))
        yield running
        structlog.configure(**before)


def preftune(api: RunningApi, *arguments: str, text: str | None = None) -> Result:
    return CliRunner().invoke(app, [*arguments, "--url", api.url], input=text)


def test_a_chat_is_printed_as_it_comes(api: RunningApi) -> None:
    with Client(api.url) as client:
        whole = client.chat.create(MODEL, "Why?", max_tokens=4)["choices"][0]["message"]["content"]
        assert "".join(client.chat.texts(MODEL, [{"role": "user", "content": "Why?"}], max_tokens=4)) == whole
        assert client.chat.complete(MODEL, "Once", max_tokens=2)["usage"]["completion_tokens"] == 2
        with pytest.raises(ApiError) as refused:
            next(client.chat.texts("nosuch", "Why?"))
        assert refused.value.code == "model-not-found"
    assert preftune(api, "chat", MODEL, "Why?", "--max-tokens", "4").stdout == f"{whole}\n"
    assert preftune(api, "chat", MODEL, "--system", "Be brief.", text="Why?\n").stdout == f"{whole}\n"
    answer = json.loads(preftune(api, "chat", MODEL, "Why?", "--json").stdout)
    assert answer["choices"][0]["message"]["content"] == whole
    hot = preftune(api, "chat", MODEL, "Why?", "--temperature", "3")
    assert hot.exit_code == 1
    assert "--temperature" in hot.stderr
    assert preftune(api, "chat", MODEL, text="").exit_code == 2


def test_an_arena_from_pairs_to_a_dataset(api: RunningApi) -> None:
    dataset_id = api.http.post("/datasets", content=pairs(3), params={"name": "rows"}).json()["id"]
    made = preftune(api, "arenas", "create", "--dataset", dataset_id, "--name", "Rows", "--pairs", "3")
    arena = made.stdout.strip()
    assert "3 pairs" in made.stderr
    judged = preftune(api, "arenas", "vote", arena, text="l\nt\n\n")
    assert judged.exit_code == 0, judged.output
    assert judged.stderr.count("left was") == 2
    listed = preftune(api, "arenas", "list", "--quiet").stdout.split()
    assert arena in listed
    assert "2 of 3 pairs judged, 2 votes of 1 voter" in preftune(api, "arenas", "show", arena).stdout
    (newest, _) = [json.loads(line) for line in preftune(api, "arenas", "votes", arena, "--json").stdout.splitlines()]
    assert newest["verdict"] == "tie"
    assert preftune(api, "arenas", "take-back", arena, newest["id"]).exit_code == 0
    cut = preftune(api, "arenas", "dataset", arena)
    assert "1 row" in cut.stderr
    assert api.http.get(f"/datasets/{cut.stdout.strip()}").json()["num_accepted"] == 1
    assert preftune(api, "arenas", "close", arena).exit_code == 0
    closed = preftune(api, "arenas", "vote", arena, text="l\n")
    assert (closed.exit_code, "closed" in closed.stderr) == (1, True)
    with Client(api.url) as client:
        assert client.arenas.reopen(arena)["is_open"]
        (pair,) = client.arenas.pairs(arena, voter="ada")
        vote = client.arenas.vote(arena, pair["id"], "both_bad", comment="neither", voter="ada")
        assert (vote["winner"], vote["comment"]) == (None, "neither")
    wrong = preftune(api, "arenas", "create", "--dataset", "ds_none")
    assert (wrong.exit_code, "--dataset" in wrong.stderr) == (1, True)
    assert preftune(api, "arenas", "delete", arena).exit_code == 0
    assert api.http.get(f"/arenas/{arena}").status_code == 404


def test_feedback_from_answers_to_a_dataset(api: RunningApi) -> None:
    with Client(api.url) as client:
        served = client.chat.create(MODEL, "Why?", n=2, store=True)["id"]
        assert client.feedback.prefer(f"{served}-1", over=f"{served}-0", giver="ada")["kind"] == "preference"
    assert preftune(api, "feedback", "give", served, "--thumb", "up").exit_code == 0
    assert preftune(api, "feedback", "give", f"{served}-1", "--edit", "Better.", "--comment", "short").exit_code == 0
    both = preftune(api, "feedback", "give", served, "--thumb", "up", "--edit", "x")
    assert (both.exit_code, "exactly one" in both.stderr) == (2, True)
    lines = preftune(api, "feedback", "answers", "--json").stdout.splitlines()
    found = {answer["id"]: answer for answer in map(json.loads, lines)}
    assert {item["kind"] for item in found[f"{served}-1"]["feedback"]} == {"preference", "edit"}
    assert "Why?" in preftune(api, "feedback", "answers").stdout
    cut = preftune(api, "feedback", "dataset")
    assert "2 rows" in cut.stderr
    assert api.http.get(f"/datasets/{cut.stdout.strip()}").json()["kind"] == "preference"
    with Client(api.url) as client:
        assert client.feedback.dataset("unpaired")["num_accepted"] == 1
    assert preftune(api, "feedback", "delete").exit_code == 2
    assert preftune(api, "feedback", "delete", f"{served}-0").exit_code == 0
    assert preftune(api, "feedback", "answers", "--quiet").stdout.split() == [f"{served}-1"]
    assert preftune(api, "feedback", "delete", "--all").exit_code == 0
    assert preftune(api, "feedback", "answers").stderr == "No answers are kept.\n"
