"""Chats over HTTP, with a real runner and a tiny model: what an answer is, and that nobody's leaving holds a place."""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from api_server import RunningApi, serve
from runner_process import SECRET, RunningRunner, children_of, running_runner
from tiny_models import CONTEXT_LENGTH, make_tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).resolve().parents[2]
SESSION = ROOT / "tests" / "support" / "openai_chat_session.py"
MODEL = "talker"
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How do I keep the house style?"}]
WAIT_SECONDS = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(tmp_path_factory.mktemp("chat"))
    make_tiny_model(folder / "models" / MODEL)
    return folder


@pytest.fixture(scope="module")
def runner(folder: Path) -> Iterator[RunningRunner]:
    with running_runner(folder, runner_idle_seconds=600, chat_max_sequences=4, chat_max_waiting=4) as running:
        yield running


@pytest.fixture(scope="module")
def api(folder: Path, runner: RunningRunner) -> Iterator[RunningApi]:
    with serve(folder, chat_max_sequences=4, chat_max_waiting=4, chat_max_per_key=8, **runner.settings()) as running:
        yield running


def ask(api: RunningApi, path: str = CHAT, **fields: Any) -> dict[str, Any]:
    asked = {"model": MODEL, "temperature": 0} | ({"messages": MESSAGES} if path == CHAT else {}) | fields
    answer = api.http.post(path, json=asked, timeout=WAIT_SECONDS)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def events(response: httpx.Response) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in response.iter_lines() if line.startswith("data: ")]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_free(runner: RunningRunner) -> bool:
    state = runner.state()
    return state["num_answers"] == 0 and all(
        model["num_users"] == 0 and model["num_open"] == 0 for model in state["models"]
    )


def test_a_greedy_answer_is_that_of_plain_transformers(api: RunningApi, folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder / "models" / MODEL, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "models" / MODEL)
    prompt = tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    expected = model.generate(**prompt, max_new_tokens=20, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    found = ask(api, max_tokens=20, logprobs=True, top_logprobs=3)
    choice = found["choices"][0]
    assert choice["message"] == {
        "role": "assistant",
        "content": tokenizer.decode(expected, skip_special_tokens=True),
        "refusal": None,
    }
    content = choice["logprobs"]["content"]
    ids = torch.cat([prompt["input_ids"][0], expected])[None]
    with torch.no_grad():
        logps = model(ids).logits[0, -len(expected) - 1 : -1].log_softmax(-1)
    assert len(content) == len(expected) == found["usage"]["completion_tokens"]
    for row, token, told in zip(logps, expected, content, strict=True):
        assert told["logprob"] == pytest.approx(float(row[token]), abs=1e-4)
        assert [other["logprob"] for other in told["top_logprobs"]] == pytest.approx(
            row.topk(3).values.tolist(), abs=1e-4
        )
    assert found["usage"]["prompt_tokens"] == prompt["input_ids"].shape[1]
    assert found["usage"]["total_tokens"] == found["usage"]["prompt_tokens"] + len(expected)


def test_a_stream_is_the_whole_in_pieces(api: RunningApi) -> None:
    fields = {"model": MODEL, "messages": MESSAGES, "max_tokens": 24, "seed": 7, "n": 2, "logprobs": True}
    whole = api.http.post(CHAT, json=fields, timeout=WAIT_SECONDS).json()
    with api.http.stream(
        "POST", CHAT, json=fields | {"stream": True, "stream_options": {"include_usage": True}}
    ) as told:
        assert told.headers["content-type"].startswith("text/event-stream")
        *chunks, last = events(told)
    assert (last["choices"], last["usage"]) == ([], whole["usage"])
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert all(chunk["usage"] is None for chunk in chunks)
    for expected in whole["choices"]:
        mine = [choice for chunk in chunks for choice in chunk["choices"] if choice["index"] == expected["index"]]
        assert mine[0]["delta"]["role"] == "assistant"
        assert "".join(choice["delta"].get("content", "") for choice in mine) == expected["message"]["content"]
        assert mine[-1]["finish_reason"] == expected["finish_reason"]
        told_logprobs = [token for choice in mine for token in (choice["logprobs"] or {"content": []})["content"]]
        assert [token["token"] for token in told_logprobs] == [
            token["token"] for token in expected["logprobs"]["content"]
        ]
    texts = [choice["message"]["content"] for choice in whole["choices"]]
    assert texts[0] != texts[1], "answers of one request have random numbers of their own"


def test_a_seed_gives_the_same_answer_whoever_is_answered_beside(api: RunningApi) -> None:
    alone = ask(api, temperature=1.2, top_p=0.9, seed=3, max_tokens=16)["choices"]
    found: list[Any] = []
    others = [threading.Thread(target=lambda: found.append(ask(api, temperature=1, max_tokens=40))) for _ in range(3)]
    for other in others:
        other.start()
    assert ask(api, temperature=1.2, top_p=0.9, seed=3, max_tokens=16)["choices"] == alone
    for other in others:
        other.join()
    assert len(found) == 3
    assert ask(api, temperature=1.2, top_p=0.9, seed=4, max_tokens=16)["choices"] != alone


def test_texts_and_ids_are_continued_as_they_stand(api: RunningApi) -> None:
    found = ask(api, TEXT, prompt=["The quick", "A preference"], max_tokens=5, logprobs=2, n=2)
    assert [choice["index"] for choice in found["choices"]] == [0, 1, 2, 3]
    assert found["choices"][0]["text"] == found["choices"][1]["text"], "greedy answers are alike"
    one = ask(api, TEXT, prompt="The quick", max_tokens=5)["choices"][0]
    assert one["text"] == found["choices"][0]["text"]
    logprobs = found["choices"][0]["logprobs"]
    assert len(logprobs["tokens"]) == len(logprobs["token_logprobs"]) == 5
    assert all(len(top) <= 2 for top in logprobs["top_logprobs"])
    ids = ask(api, TEXT, prompt=[5, 6, 7], max_tokens=2)
    assert ids["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    with api.http.stream("POST", TEXT, json={"model": MODEL, "prompt": "x", "max_tokens": 3, "stream": True}) as told:
        assert {chunk["object"] for chunk in events(told)} == {"text_completion"}


def test_an_answer_ends_at_a_stop_text(api: RunningApi) -> None:
    whole = ask(api, max_tokens=30)["choices"][0]["message"]["content"]
    stop = whole[6:8]
    choice = ask(api, max_tokens=30, stop=[stop])["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == (whole[: whole.index(stop)], "stop")


REFUSED: list[tuple[dict[str, Any], int, str, str]] = [
    ({"model": "nosuch"}, 404, "model", "model_not_found"),
    ({"model": "job_1@sft"}, 404, "model", "model_not_found"),
    ({"messages": []}, 400, "messages", "invalid_request"),
    ({"tools": []}, 400, "tools", "invalid_request"),
    ({"top_logprobs": 2}, 400, "top_logprobs", "invalid_request"),
    ({"logit_bias": {"5": 1}}, 400, "logit_bias", "invalid_request"),
    ({"presence_penalty": 0.5}, 400, "presence_penalty", "invalid_request"),
    ({"temperature": 2.5}, 400, "temperature", "invalid_request"),
    ({"n": 9}, 400, "n", "invalid_request"),
    ({"max_tokens": 5, "max_completion_tokens": 6}, 400, "max_tokens", "invalid_request"),
    ({"stream_options": {}}, 400, "stream_options", "invalid_request"),
    ({"max_tokens": CONTEXT_LENGTH}, 400, "max_tokens", "context_length_exceeded"),
    ({"max_tokens": 1_000_000}, 400, "max_tokens", "invalid_request"),
]


@pytest.mark.parametrize(("fields", "status", "param", "code"), REFUSED, ids=[str(case[0])[:40] for case in REFUSED])
def test_what_cannot_be_honoured_is_refused(
    api: RunningApi, fields: dict[str, Any], status: int, param: str, code: str
) -> None:
    answer = api.http.post(CHAT, json={"model": MODEL, "messages": MESSAGES} | fields)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (status, param, code), answer.text


def test_a_client_that_leaves_frees_its_place(api: RunningApi, runner: RunningRunner) -> None:
    fields = {"model": MODEL, "messages": MESSAGES, "n": 4, "max_tokens": 400, "stop": ["\x01never"]}
    for _ in range(3):  # the next one would wait for ever if a place were lost
        with api.http.stream("POST", CHAT, json=fields | {"stream": True}) as told:
            next(told.iter_lines())
        with pytest.raises(httpx.ReadTimeout):
            api.http.post(CHAT, json=fields, timeout=httpx.Timeout(WAIT_SECONDS, read=0.05))
    wait_until(lambda: is_free(runner) and api.shares.answers.num_held == 0)  # each hears of the other's end by itself


def test_training_comes_first(tmp_path: Path) -> None:
    """Niceness alone counts inside a session where the kernel groups by sessions."""
    make_tiny_model(tmp_path / "models" / MODEL)
    with (
        running_runner(tmp_path, runner_sharing="training-first") as runner,
        serve(tmp_path, **runner.settings()) as api,
    ):
        ask(api, max_tokens=1)
        assert runner.process is not None
        (engine,) = children_of(runner.process.pid)
        check_priority(engine)


def check_priority(engine: int) -> None:
    threads = [int(path.name) for path in Path(f"/proc/{engine}/task").iterdir()]
    assert {os.getpriority(os.PRIO_PROCESS, thread) for thread in threads} == {10}
    group = Path(f"/proc/{engine}/autogroup")
    if not group.exists():
        pytest.skip("this kernel does not group processes by sessions")
    assert group.read_text().split()[-2:] == ["nice", "10"]


@contextmanager
def stopped(runner: RunningRunner) -> Iterator[None]:
    """The runner's one model computes nothing while the block runs."""
    assert runner.process is not None
    (engine,) = children_of(runner.process.pid)
    os.kill(engine, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(engine, signal.SIGCONT)


def test_one_key_has_a_share_of_the_runner(
    api: RunningApi, runner: RunningRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.shares.answers, "most_of_one", 4)
    fields = {"model": MODEL, "messages": MESSAGES, "n": 3, "max_tokens": 400, "stream": True}
    with api.http.stream("POST", CHAT, json=fields, timeout=WAIT_SECONDS) as told:
        lines = told.iter_lines()  # one that is forgotten closes its answer
        next(lines)
        with stopped(runner):  # else the answers could be over before the next request comes
            refused = api.http.post(CHAT, json={"model": MODEL, "messages": MESSAGES, "n": 2})
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_many_answers")
        assert int(refused.headers["retry-after"]) > 0
        assert "4 are its share" in refused.json()["error"]["message"]
    wait_until(lambda: api.shares.answers.num_held == 0)
    many = api.http.post(TEXT, json={"model": MODEL, "prompt": ["x"] * 9})
    assert (many.status_code, many.json()["error"]["param"]) == (400, "n"), "asking again would not help"
    assert ask(api, max_tokens=1)["usage"]["completion_tokens"] == 1


def test_a_runner_that_dies_is_told_of_and_followed(api: RunningApi, runner: RunningRunner, folder: Path) -> None:
    fields = {"model": MODEL, "messages": MESSAGES, "n": 4, "max_tokens": 400, "stream": True}
    assert runner.process is not None
    engines = children_of(runner.process.pid)
    assert len(engines) == 1
    environment = Path(f"/proc/{engines[0]}/environ").read_bytes()
    assert environment
    assert SECRET.encode() not in environment, "what reads foreign files holds no secret"
    with api.http.stream("POST", CHAT, json=fields, timeout=WAIT_SECONDS) as told:
        lines = told.iter_lines()
        next(lines)
        runner.kill()
        rest = [line for line in lines if line.startswith("data: ")]
    error = json.loads(rest[-1].removeprefix("data: "))["error"]
    assert (error["type"], error["code"]) == ("server_error", "runner_failed")
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in engines))
    answers: list[dict[str, Any]] = []
    asking = threading.Thread(target=lambda: answers.append(ask(api, max_tokens=3)))
    asking.start()
    wait_until(runner.start_if_wanted)
    asking.join(WAIT_SECONDS)
    assert answers[0]["usage"]["completion_tokens"] == 3
    kept = [path.name for path in (folder / "data" / "scratch" / "workers").iterdir()]
    assert len(kept) == 1, "what the dead one left is gone"


def test_without_the_secret_a_runner_answers_nobody(runner: RunningRunner) -> None:
    for path in ("/generate", "/score"):
        assert httpx.post(runner.url + path, content=b"{}", trust_env=False).status_code == 401
    assert httpx.get(f"{runner.url}/state", trust_env=False).status_code == 401


def test_an_api_without_a_runner_says_so(tmp_path: Path, folder: Path) -> None:
    with serve(tmp_path) as alone:
        make_tiny_model(tmp_path / "models" / MODEL)
        answer = alone.http.post(CHAT, json={"model": MODEL, "messages": MESSAGES})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "runner_unavailable")


@pytest.mark.parametrize("version", ["1.109.1", "2.54.0", "3.57.0"])
def test_the_openai_package_talks_to_it_unmodified(api: RunningApi, version: str) -> None:
    python = ROOT / ".venv" / "openai" / version / "bin" / "python"
    if not python.exists():
        pytest.skip(f"no environment with openai {version}; `make openai-clients` makes it")
    environment = os.environ | {"OPENAI_API_KEY": "none", "NO_PROXY": "127.0.0.1"}
    command = [python, SESSION, api.url, MODEL]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
