"""Calls, reasoning and weights through the API; what a base model cannot take is said before a job, and by the job."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api_server import RunningApi, pointers, serve
from backends import BASE_MODEL
from tiny_models import write_tiny_tokenizer

STRICT = (
    "{{ '<quiet>' if quiet else '' }}{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + (m.content | trim) }}"
    "{% for call in m.tool_calls or [] %}{{ '<call>' + call.function.name + (call.function.arguments | tojson) }}"
    "{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% endif %}"
)
"""Trims what is said, writes calls but no tools, and has a switch."""
USER = {"role": "user", "content": "Say fox"}
CALL = {"type": "function", "function": {"name": "find", "arguments": {"what": "fox"}}}


def answer(content: str, **fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **fields}


ROWS = [
    {"prompt": [USER], "chosen": [answer("fox")], "rejected": [answer("dog")]},
    {"prompt": [USER], "chosen": [answer("fox")], "rejected": [answer("\n\nfox")]},
    {"prompt": [USER], "chosen": [answer("", tool_calls=[CALL])], "rejected": [answer("dog")]},
    {"prompt": [USER], "chosen": [answer("fox")], "rejected": [answer("dog")], "tools": [CALL | {"name": "find"}]},
    {"prompt": [USER], "chosen": [answer("fox " * 600)], "rejected": [answer("dog")]},
    {"prompt": [USER], "chosen": [answer("fox " * 300)], "rejected": [answer("dog")]},
]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    folder = Path(tmp_path_factory.mktemp("seen"))
    with serve(folder) as running:
        models = folder / "models"
        write_tiny_tokenizer(models / BASE_MODEL)
        shutil.copytree(models / BASE_MODEL, models / "strict")
        (models / "strict" / "chat_template.jinja").write_text(STRICT, encoding="utf-8")
        yield running


@pytest.fixture(scope="module")
def dataset_id(api: RunningApi) -> str:
    content = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    response = api.http.post("/datasets", content=content)
    assert response.status_code == 201, response.text
    found: str = response.json()["id"]
    return found


def test_rows_come_back_with_all_that_they_hold(api: RunningApi, dataset_id: str) -> None:
    rows = api.http.get(f"/datasets/{dataset_id}/rows").json()["data"]
    assert rows[2]["chosen"] == [answer("", tool_calls=[CALL])]
    assert rows[0] == {"line": 1, **ROWS[0]}
    assert rows[3]["tools"][0]["function"]["name"] == "find"


def test_what_a_model_cannot_take_is_counted_with_its_reasons(api: RunningApi, dataset_id: str) -> None:
    params: dict[str, Any] = {"base_model": "strict", "max_length": 1024}
    found = api.http.get(f"/datasets/{dataset_id}/tokens", params=params).json()
    assert found["num_rows"] == 6
    assert (found["num_over_max_length"], found["num_equal_once_rendered"], found["num_unencodable"]) == (1, 1, 1)
    models = {model["name"]: model for model in api.http.get("/models").json()["data"]}
    assert found["context_length"] == models["strict"]["context_length"] == 64
    assert found["num_over_context"] == 2
    (problem,) = found["problems"]
    assert "does not write tool definitions" in problem["detail"]
    assert (problem["num_rows"], problem["line"]) == (1, 4)
    plain = api.http.get(f"/datasets/{dataset_id}/tokens", params=params | {"base_model": BASE_MODEL}).json()
    assert (plain["num_equal_once_rendered"], plain["num_unencodable"]) == (0, 2)


def test_the_preview_says_why_a_row_is_not_trained_on(api: RunningApi, dataset_id: str) -> None:
    rows = api.http.get(f"/datasets/{dataset_id}/rows", params={"base_model": "strict"}).json()["data"]
    reasons = [row["preview"]["set_aside"] for row in rows]
    assert reasons == [None, "equal_once_rendered", None, "not_encodable", "too_long", None]
    assert rows[2]["preview"]["texts"]["chosen"]["text"] == '<call>find{"what": "fox"}<|im_end|>'
    assert "same tokens" in rows[1]["preview"]["problem"]
    assert [row["preview"]["fits_context"] for row in rows if row["preview"]["num_tokens"]] == [
        *(True, True, True),
        *(False, False),
    ]


def test_a_job_preview_says_the_same(api: RunningApi, dataset_id: str) -> None:
    body = {"base_model": "strict", "dataset_id": dataset_id, "max_length": 1024}
    rows = api.http.post("/jobs/preview", json=body).json()["rows"]
    tokens = api.http.get(
        f"/datasets/{dataset_id}/tokens", params={"base_model": "strict", "max_length": "1024"}
    ).json()
    assert rows == tokens


def test_variables_of_the_template(api: RunningApi, dataset_id: str) -> None:
    given = {"base_model": "strict", "chat_template_kwargs": json.dumps({"quiet": True})}
    rows = api.http.get(f"/datasets/{dataset_id}/rows", params=given).json()["data"]
    assert rows[0]["preview"]["texts"]["prompt"]["text"].startswith("<quiet><|im_start|>user")
    assert api.http.get(f"/datasets/{dataset_id}/tokens", params=given).status_code == 200
    body = {"base_model": "strict", "dataset_id": dataset_id, "chat_template_kwargs": {"quiet": True}}
    assert api.http.post("/jobs/preview", json=body).json()["spec"]["chat_template_kwargs"] == {"quiet": True}


@pytest.mark.parametrize(
    "kwargs", ['{"loud": true}', '{"messages": "x"}', "[1]", "{", '{"quiet": [1]}', '{"quiet": null}']
)
def test_wrong_variables_are_refused_where_they_are_given(api: RunningApi, dataset_id: str, kwargs: str) -> None:
    for path in ("rows", "tokens"):
        params = {"base_model": "strict", "chat_template_kwargs": kwargs}
        response = api.http.get(f"/datasets/{dataset_id}/{path}", params=params)
        assert response.status_code == 422, response.text
        assert all(pointer.startswith("/chat_template_kwargs") for pointer in pointers(response)), response.text


def test_a_job_is_not_accepted_with_a_variable_that_nothing_reads(api: RunningApi, dataset_id: str) -> None:
    body = {"base_model": "strict", "dataset_id": dataset_id, "chat_template_kwargs": {"enable_thinking": False}}
    for path in ("/jobs", "/jobs/preview"):
        response = api.http.post(path, json=body)
        assert (response.status_code, pointers(response)) == (422, ["/chat_template_kwargs"]), response.text
        assert "reads quiet" in response.text
