"""`vllm serve` as the runner, by URL: against a stand-in for its API, since vLLM needs a GPU."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_server import RunningApi, serve
from published_models import publish_model
from tiny_models import make_tiny_model
from vllm_standin import END_ID, KEY, VllmStandIn, running_standin

from core.services.chat.runner import RunnerUnavailable
from core.services.chat.vllm.address import check_url, judged_address
from core.settings import SettingsError, load_settings

MODEL = "talker"
CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "How do I keep the house style?"}]
WAIT_SECONDS = 30


@pytest.fixture(scope="module")
def vllm() -> Iterator[VllmStandIn]:
    with running_standin(MODEL) as standin:
        yield standin


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, vllm: VllmStandIn) -> Iterator[RunningApi]:
    folder = Path(tmp_path_factory.mktemp("vllm"))
    make_tiny_model(folder / "models" / MODEL)
    with serve(folder, **settings(vllm, runner_max_adapters=2, chat_max_sequences=4, chat_max_waiting=2)) as running:
        yield running


@pytest.fixture(autouse=True)
def fresh(vllm: VllmStandIn) -> None:
    vllm.asked.clear()
    vllm.log.clear()
    vllm.is_stuck, vllm.breaks_after, vllm.redirects_to = False, None, None


def settings(vllm: VllmStandIn, **more: Any) -> dict[str, Any]:
    return {"runner_kind": "vllm", "runner_url": vllm.url, "runner_secret": KEY, **more}


def ask(api: RunningApi, model: str = MODEL, **fields: Any) -> httpx.Response:
    body = {"model": model, "messages": MESSAGES, "max_tokens": 6, **fields}
    return api.http.post(CHAT, json=body, timeout=WAIT_SECONDS)


def error(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, str(response.json()["error"]["code"])


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def policy(api: RunningApi, folder: Path, name: str, rank: int = 4) -> str:
    """A LoRA job with an adapter of its own; returns its id."""
    adapter = folder / name / "adapter"
    adapter.mkdir(parents=True)
    (folder / name / "config.json").write_text("{}")
    (adapter / "adapter_config.json").write_text(json.dumps({"r": rank}))
    (adapter / "adapter_model.safetensors").write_bytes(name.encode())
    return publish_model(api, folder / name, base_model=MODEL, sft="skip", lora={"rank": rank}, name=name)


def test_a_base_model_answers_by_token_ids(api: RunningApi, vllm: VllmStandIn) -> None:
    answer = ask(api, n=2, seed=-1, temperature=0.7, top_p=0.9, logprobs=True, top_logprobs=2).json()
    (sent,) = vllm.asked
    assert (sent["model"], sent["n"], sent["max_tokens"], sent["seed"]) == (MODEL, 2, 6, 2**63 - 1)
    assert (sent["temperature"], sent["top_p"], sent["stop_token_ids"]) == (0.7, 0.9, [END_ID])
    assert (sent["ignore_eos"], sent["add_special_tokens"], sent["repetition_penalty"]) == (True, False, 1)
    assert answer["usage"]["prompt_tokens"] == len(sent["prompt"])
    assert answer["usage"]["completion_tokens"] == 12
    for index, choice in enumerate(answer["choices"]):
        ids = vllm.tokens(sent, index)
        content = choice["logprobs"]["content"]
        assert [token["logprob"] for token in content] == [vllm.logprob(MODEL, token) for token in ids]
        assert [len(token["top_logprobs"]) for token in content] == [2] * 6
        assert [token["top_logprobs"][0]["logprob"] for token in content] == [token["logprob"] for token in content]
        assert choice["finish_reason"] == "length"
    with api.http.stream("POST", CHAT, json=sent_again(sent)) as told:
        text = "".join(delta.get("content", "") for delta in deltas(told))
    assert text == answer["choices"][0]["message"]["content"]


def sent_again(sent: dict[str, Any]) -> dict[str, Any]:
    return {"model": MODEL, "messages": MESSAGES, "max_tokens": 6, "seed": -1, "temperature": 0.7, "stream": True}


def deltas(told: httpx.Response) -> list[dict[str, Any]]:
    lines = [text.removeprefix("data: ") for text in told.iter_lines() if text.startswith("data: {")]
    return [choice["delta"] for text in lines for choice in json.loads(text)["choices"]]


def test_an_answer_ends_at_an_end_token(api: RunningApi) -> None:
    answer = ask(api, max_tokens=200, temperature=0).json()
    assert (answer["choices"][0]["finish_reason"], answer["usage"]["completion_tokens"]) == ("stop", 33)


def test_lora_policies_are_loaded_and_make_room(api: RunningApi, vllm: VllmStandIn, tmp_path: Path) -> None:
    first, second, third = (policy(api, tmp_path, name) for name in ("first", "second", "third"))
    texts = {job_id: ask(api, job_id).json()["choices"][0]["message"]["content"] for job_id in (first, second)}
    assert texts[first] != texts[second]
    names = [text.removeprefix("load ") for text in vllm.log]
    assert len(names) == 2
    folder = Path(vllm.adapters[names[0]])
    assert sorted(path.name for path in folder.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    ask(api, first)
    assert len(vllm.log) == 2, "what is loaded is not loaded again"
    assert ask(api, third).status_code == 200
    assert vllm.log[2] == f"unload {names[1]}", "the one used longest ago makes room"
    assert folder.is_dir(), "vLLM may read it again while a request is under way"
    vllm.restart()
    assert ask(api, first).json()["choices"][0]["message"]["content"] == texts[first], "a server started anew is told"
    rewarded = ask(api, first, reference=True, logprobs=True).json()["choices"][0]
    assert rewarded["reference"]["model"] == MODEL
    content = rewarded["logprobs"]["content"]
    assert rewarded["reference"]["logprobs"] == pytest.approx([token["logprob"] + 0.5 for token in content])
    assert rewarded["reference"]["log_ratio"] == pytest.approx(-0.5 * len(content))


def test_what_vllm_cannot_serve_is_told(api: RunningApi, vllm: VllmStandIn, tmp_path: Path) -> None:
    high = ask(api, policy(api, tmp_path, "high", rank=32))
    assert error(high) == (400, "model_not_served")
    assert "max_lora_rank" in high.json()["error"]["message"]
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "config.json").write_text("{}")
    job_id = publish_model(api, tmp_path / "whole", base_model=MODEL, sft="skip")
    whole = ask(api, job_id)
    assert error(whole) == (400, "model_not_served")
    assert f"--served-model-name {job_id}" in whole.json()["error"]["message"]
    make_tiny_model(api.settings.models_dir / "another")
    another = ask(api, "another")
    assert error(another) == (400, "model_not_served")
    assert f"vLLM serves {MODEL}" in another.json()["error"]["message"]
    vllm.max_model_len = 20
    vllm.restart()
    with serve(tmp_path / "other", **settings(vllm)) as fresh:
        make_tiny_model(tmp_path / "other" / "models" / MODEL)
        assert error(ask(fresh)) == (400, "context_length_exceeded")
    vllm.max_model_len = 512


def test_failures_are_clear(api: RunningApi, vllm: VllmStandIn, tmp_path: Path) -> None:
    vllm.breaks_after = 3
    assert error(ask(api)) == (503, "runner_failed")
    vllm.breaks_after, vllm.redirects_to = None, "http://127.0.0.1:1/elsewhere"
    assert error(ask(api)) == (503, "runner_failed"), "a redirect is not followed"
    vllm.redirects_to = None
    make_tiny_model(tmp_path / "models" / MODEL)
    with running_standin(MODEL, allows_adapters=False) as strict, serve(tmp_path, **settings(strict)) as other:
        refused = ask(other, policy(other, tmp_path, "refused"))
        assert error(refused) == (400, "model_not_served")
        assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" in refused.json()["error"]["message"]
    assert error(ask_at(tmp_path, vllm, runner_url="http://127.0.0.1:9")) == (503, "runner_unavailable")
    unknown = ask_at(tmp_path, vllm, runner_secret="another")
    assert error(unknown) == (503, "runner_unavailable")
    assert "--api-key" in unknown.json()["error"]["message"]
    vllm.is_stuck = True
    assert error(ask_at(tmp_path, vllm, chat_timeout_seconds=0.5)) == (503, "runner_timed_out")


def test_the_key_and_the_prompt_are_in_no_log(
    api: RunningApi, vllm: VllmStandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    canary = "canary-of-a-prompt"
    vllm.breaks_after = 1
    answers = [ask(api, messages=[{"role": "user", "content": canary}]).text]
    vllm.breaks_after, vllm.redirects_to = None, f"http://127.0.0.1:9/{KEY}"
    answers.append(ask(api, messages=[{"role": "user", "content": canary}]).text)
    told = "".join([*answers, *capsys.readouterr()])
    assert "request" in told
    assert [secret for secret in (canary, KEY) if secret in told] == []


def ask_at(folder: Path, vllm: VllmStandIn, **more: Any) -> httpx.Response:
    with serve(folder, **settings(vllm) | more) as other:
        return ask(other)


def test_a_client_that_leaves_frees_its_place_at_vllm(api: RunningApi, vllm: VllmStandIn) -> None:
    vllm.is_stuck = True
    body = {"model": MODEL, "messages": MESSAGES, "n": 4, "stream": True}
    with api.http.stream("POST", CHAT, json=body, timeout=WAIT_SECONDS) as told:
        lines = told.iter_lines()
        next(lines)
        assert vllm.num_open == 1
        assert error(ask(api)) == (429, "too_many_answers")
    wait_until(lambda: vllm.num_open == 0)
    vllm.is_stuck = False
    assert ask(api).status_code == 200
    assert api.shares.answers.num_held == 0


@pytest.mark.parametrize(
    "url",
    [
        "http://user:secret@gpu-1:8000",
        "http://gpu-1:8000?x=1",
        "http://gpu-1:8000/v1",
        "http://:8000",
        "http://gpu:99999",
    ],
)
def test_an_address_that_cannot_be_meant_prevents_the_start(tmp_path: Path, url: str) -> None:
    with pytest.raises(SettingsError, match="PREFTUNE_RUNNER_URL"):
        check_url(url)


def test_a_kind_needs_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFTUNE_RUNNER_URL", raising=False)
    with pytest.raises(SettingsError, match="PREFTUNE_RUNNER_URL"):
        load_settings(runner_kind="vllm")


@pytest.mark.parametrize(
    ("host", "is_plain", "is_allowed"),
    [
        ("127.0.0.1", True, True),
        ("10.0.0.5", True, True),
        ("100.64.0.7", True, True),
        ("93.184.216.34", True, False),
        ("93.184.216.34", False, True),
        ("169.254.169.254", False, False),
        ("::ffff:169.254.169.254", True, False),
        ("fd00:ec2::254", True, False),
        ("100.100.100.200", True, False),
        ("0.0.0.0", True, False),
        ("224.0.0.1", True, False),
    ],
)
def test_where_requests_may_go(host: str, is_plain: bool, is_allowed: bool) -> None:
    if is_allowed:
        assert str(judged_address(host, is_plain=is_plain)) == host
    else:
        with pytest.raises(RunnerUnavailable):
            judged_address(host, is_plain=is_plain)
