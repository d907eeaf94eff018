"""Nothing a client sends gets a 5xx: every operation of the OpenAPI document, with text and JSON of all kinds."""

import base64
import json
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from api_server import RunningApi, pairs
from backends import BASE_MODEL, claim, point
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.app import create_app
from api.docs.document import describe
from core.services.attempts import recording
from core.settings import Settings

GENERATION = {"models": [BASE_MODEL], "prompts": ["Why?"]}
EVENT_STREAM = "text/event-stream; charset=utf-8"
FUZZ = settings(
    max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
ODD_TEXTS = st.sampled_from(
    [
        "\x00",
        "\ud800",
        "\udfff\ud800",
        "",
        " ",
        "null",
        "-1",
        "1e999",
        "9" * 400,
        "../..",
        "%00",
        "a" * 5000,
        "\u202e<b>",
    ]
)
TEXTS = st.one_of(ODD_TEXTS, st.text(max_size=40))
SCALARS = st.one_of(
    TEXTS, st.none(), st.booleans(), st.integers(), st.integers(-(10**40), 10**40), st.floats(allow_nan=True)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)


def operations() -> list[tuple[str, str, list[str]]]:
    """(method, path, names of query parameters)"""
    document = describe(create_app(Settings()))
    return [
        (method, path, [p["name"] for p in operation.get("parameters", []) if p["in"] == "query"])
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if not path.startswith("/health")
    ]


def must_be_answered(response: httpx.Response) -> None:
    assert response.status_code < 500, response.read()
    if response.status_code >= 400:
        assert response.headers["content-type"] == "application/problem+json"
        problem = response.json()
        assert problem["status"] == response.status_code
        assert problem["detail"]


def odd_quote(text: str) -> str:
    return quote(text.encode("utf-8", "surrogatepass"), safe="")


@pytest.fixture(scope="module")
def ids(api: RunningApi) -> dict[str, str]:
    """Things that are there, so that what hangs below them is reached."""
    dataset = api.http.post("/datasets", content=pairs()).json()
    job = api.submit()
    held = claim(api.backend)
    recording.record_points(held, [point(1)])
    upload = api.http.post("/uploads", json={"num_bytes": 100}).json()
    return {
        "dataset_id": dataset["id"],
        "upload_id": upload["id"],
        "number": "1",
        "job_id": job["id"],
        "path": "model.safetensors",
        "checkpoint_id": "ckpt_none",
        "score_id": "score_none",
        "export_id": "export_none",
        "republication_id": "rep_none",
        "webhook_id": "wh_none",
        "key_id": "key_none",
        "sweep_id": "sweep_none",
        "arena_id": api.http.post("/arenas", json={"dataset_id": dataset["id"]}).json()["id"],
        "vote_id": "vote_none",
        "judgement_id": "judge_none",
        "rounds_id": "rounds_none",
        "generation_id": api.http.post("/generations", json=GENERATION).json()["id"],
        "answer_id": "chatcmpl_none-0",
    }


@pytest.mark.parametrize(("method", "path", "names"), operations(), ids=lambda value: str(value)[:40])
def test_no_path_or_query_fails(api: RunningApi, ids: dict[str, str], method: str, path: str, names: list[str]) -> None:
    if method == "delete" and path.startswith(("/datasets", "/uploads")):
        ids = ids | {"dataset_id": "ds_none", "upload_id": "upl_none"}  # those that are there are needed
    # Options that happen to be right start a process that checks the file.
    num_examples = 8 if (method, path) == ("post", "/datasets") else 15

    @settings(FUZZ, max_examples=num_examples)
    @given(
        odd_id=st.one_of(st.none(), TEXTS.filter(bool)), query=st.dictionaries(st.sampled_from([*names, "x"]), TEXTS)
    )
    def check(odd_id: str | None, query: dict[str, str]) -> None:
        values = {name: odd_quote(odd_id) if odd_id else value for name, value in ids.items()}
        asked = "&".join(f"{name}={odd_quote(text)}" for name, text in query.items())
        with api.http.stream(method, f"{path.format(**values)}?{asked}") as response:
            if response.headers.get("content-type") != EVENT_STREAM:  # which would not end before the job
                response.read()
            must_be_answered(response)

    check()


@FUZZ
@given(fields=st.dictionaries(st.sampled_from(["base_model", "dataset_id", "variant", "name", "beta", "seed"]), VALUES))
def test_no_job_fails(api: RunningApi, fields: dict[str, Any]) -> None:
    body = {"base_model": BASE_MODEL, "dataset_id": api.dataset_id()} | fields
    must_be_answered(post_json(api, "/jobs", body))


@FUZZ
@given(
    name=st.sampled_from(["sft", "dpo", "lora", "early_stopping", "variant_options", "metadata", "sample_prompts"]),
    value=VALUES,
)
def test_no_nested_field_fails(api: RunningApi, name: str, value: Any) -> None:
    body = {"base_model": BASE_MODEL, "dataset_id": api.dataset_id(), name: value}
    must_be_answered(post_json(api, "/jobs", body))


@FUZZ
@given(value=VALUES)
def test_no_value_in_the_place_of_a_number_fails(api: RunningApi, value: Any) -> None:
    body = {"base_model": BASE_MODEL, "dataset_id": api.dataset_id(), "dpo": {"learning_rate": value, "epochs": value}}
    must_be_answered(post_json(api, "/jobs", body))
    must_be_answered(post_json(api, "/jobs", body | {"dpo": {}, "variant": "cdpo", "variant_options": {"x": value}}))


@FUZZ
@given(body=st.one_of(VALUES, st.dictionaries(st.sampled_from(["name", "metadata", "priority"]), VALUES)))
def test_no_patch_fails(api: RunningApi, ids: dict[str, str], body: Any) -> None:
    content = json.dumps(body)
    headers = {"Content-Type": "application/json"}
    must_be_answered(api.http.patch(f"/jobs/{ids['job_id']}", content=content, headers=headers))


@FUZZ
@given(
    key=st.binary(max_size=20).map(lambda raw: bytes(byte for byte in raw if byte > 31 and byte != 127)),
    body=st.binary(max_size=60),
    content_type=st.sampled_from(
        ["application/json", "multipart/form-data; boundary=x", "text/plain", "", ";", "a/b;c"]
    ),
)
def test_no_bytes_fail(api: RunningApi, key: bytes, body: bytes, content_type: str) -> None:
    headers = [(b"Idempotency-Key", key), (b"Content-Type", content_type.encode())]
    must_be_answered(api.http.post("/jobs", content=body, headers=headers))


@pytest.mark.parametrize("position", ["1", "5", "999999999", "999999999999999999", "x", "\x00", "job_\x00", "-1", ""])
def test_no_cursor_of_ones_own_making_fails(api: RunningApi, ids: dict[str, str], position: str) -> None:
    cursor = base64.urlsafe_b64encode(position.encode()).decode().rstrip("=")
    dataset = f"/datasets/{ids['dataset_id']}"
    for path in ("/jobs", "/datasets", "/models", f"{dataset}/rows", f"{dataset}/report"):
        must_be_answered(api.http.get(path, params={"cursor": cursor}))


def post_json(api: RunningApi, path: str, body: Any) -> httpx.Response:
    return api.http.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})
