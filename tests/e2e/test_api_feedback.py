"""Feedback over HTTP: answers are kept where request and key say so, and what people think becomes a dataset."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_server import RunningApi, pointers, serve
from scripted_runner import ScriptedRunner
from tiny_models import make_tiny_model

from core.domain.access import Scope
from core.services.access import api_keys
from preftune import Client

KEY = "pt_feedback_0123456789abcdef012345"
MODEL = "talker"
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
MESSAGES = [{"role": "user", "content": "Why?"}]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    folder = Path(tmp_path_factory.mktemp("feedback"))
    make_tiny_model(folder / "models" / MODEL)
    runner = ScriptedRunner(answers=[(70, 71, 72), (80, 81, 82)])
    with serve(folder, runner=runner, api_key=KEY) as running:
        running.http.headers["Authorization"] = f"Bearer {KEY}"
        yield running


@pytest.fixture(scope="module")
def user(api: RunningApi) -> Iterator[httpx.Client]:
    """An application with a key that may only use, and lets answers be kept."""
    token = Client(api.url, api_key=KEY).keys.create("app", scope="use", keeps_answers=True)["token"]
    with httpx.Client(base_url=api.url, headers={"Authorization": f"Bearer {token}"}, timeout=30) as http:
        yield http


def ask(http: httpx.Client, path: str = CHAT, **fields: Any) -> httpx.Response:
    asked = {"model": MODEL, "max_tokens": 3, "store": True} | ({"messages": MESSAGES} if path == CHAT else {}) | fields
    return http.post(path, json=asked)


def served(api: RunningApi, completion_id: str) -> dict[str, dict[str, Any]]:
    found = api.http.get("/feedback/answers", params={"limit": 100}).json()["data"]
    return {each["id"]: each for each in found if each["id"].startswith(completion_id)}


def test_answers_are_kept_only_where_request_and_key_say_so(api: RunningApi, user: httpx.Client) -> None:
    plain = api_keys.create(api.backend, "default", "plain", Scope.USE).token
    with httpx.Client(base_url=api.url, headers={"Authorization": f"Bearer {plain}"}) as other:
        refused = ask(other)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "keeping_not_allowed")
    without = ask(user, store=False).json()
    assert served(api, without["id"]) == {}
    whole = ask(user, n=2).json()
    kept = served(api, whole["id"])
    assert [kept[f"{whole['id']}-{n}"]["answer"] for n in (0, 1)] == [
        choice["message"]["content"] for choice in whole["choices"]
    ]
    assert [(each["role"], each["content"]) for each in kept[f"{whole['id']}-0"]["prompt"]] == [("user", "Why?")]
    keys = Client(api.url, api_key=KEY).keys
    old = next(each for each in keys.list() if each["name"] == "app")
    new = keys.rotate(old["id"])
    assert (new["scope"], new["keeps_answers"]) == ("use", True)
    tokens = ask(user, TEXT, prompt=[5, 6])
    assert (tokens.status_code, tokens.json()["error"]["param"]) == (400, "store")


def test_a_streamed_answer_is_kept_whole(api: RunningApi, user: httpx.Client) -> None:
    lines = [line[6:] for line in ask(user, TEXT, prompt=["Why?", "So?"], stream=True).text.splitlines() if line]
    assert lines.pop() == "[DONE]"
    chunks = [json.loads(line) for line in lines]
    name = chunks[0]["id"]
    kept = served(api, name)
    assert [kept[f"{name}-{n}"]["prompt"] for n in (0, 1)] == ["Why?", "So?"]
    for index in (0, 1):
        text = "".join(c["text"] for chunk in chunks for c in chunk["choices"] if c["index"] == index)
        assert text
        assert kept[f"{name}-{index}"]["answer"] == text


def test_feedback_becomes_a_dataset_that_grows(api: RunningApi, user: httpx.Client) -> None:
    api.http.delete("/feedback/answers")
    name = ask(user, n=2).json()["id"]
    key = {"Idempotency-Key": "edit-1"}
    body = {"answer_id": name, "edit": "It rains.", "giver": "anna", "comment": "in full"}
    given = user.post("/feedback", json=body, headers=key)
    assert given.status_code == 201, given.text
    assert given.json()["giver"].startswith("anna@key_")
    assert user.post("/feedback", json=body, headers=key).json() == given.json()
    assert user.post("/feedback", json=body | {"edit": "No."}, headers=key).status_code == 422
    better = user.post("/feedback", json={"answer_id": f"{name}-1", "better_than": f"{name}-0"})
    assert (better.json()["kind"], better.json()["other_id"]) == ("preference", f"{name}-0")
    assert user.post("/feedback", json={"answer_id": name, "thumb": "down"}).status_code == 201
    assert user.post("/feedback/dataset", json={}).status_code == 403
    made = api.http.post("/feedback/dataset", json={})
    assert made.status_code == 201, made.text
    assert (made.json()["kind"], made.json()["num_accepted"]) == ("preference", 2)
    assert api.http.get(made.headers["location"]).json()["id"] == made.json()["id"]
    assert api.http.post("/feedback/dataset", json={"kind": "preference"}).status_code == 200
    thumbs = api.http.post("/feedback/dataset", json={"kind": "unpaired"}).json()
    assert (thumbs["kind"], thumbs["num_accepted"]) == ("unpaired", 1)
    assert user.delete(f"/feedback/answers/{name}-0").status_code == 403
    assert api.http.delete(f"/feedback/answers/{name}-0").status_code == 204
    assert served(api, name)[f"{name}-1"]["feedback"] == []
    assert api.http.delete(f"/feedback/answers/{name}-0").json()["code"] == "answer-not-found"
    assert api.http.post("/feedback/dataset", json={}).json()["code"] == "no-feedback"


@pytest.mark.parametrize(
    ("body", "status", "where"),
    [
        ({"answer_id": "chatcmpl_none", "thumb": "up"}, 404, []),
        ({"answer_id": "chatcmpl_none"}, 422, [""]),
        ({"answer_id": "chatcmpl_none", "thumb": "up", "edit": "x"}, 422, [""]),
        ({"answer_id": "chatcmpl_none", "thumb": "sideways"}, 422, ["/thumb"]),
        ({"thumb": "up"}, 422, ["/answer_id"]),
        ({"answer_id": "chatcmpl_none", "edit": ""}, 422, ["/edit"]),
    ],
)
def test_a_fault_names_its_place(user: httpx.Client, body: dict[str, Any], status: int, where: list[str]) -> None:
    refused = user.post("/feedback", json=body)
    assert (refused.status_code, pointers(refused)) == (status, where), refused.text
