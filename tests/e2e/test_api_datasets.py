"""`/datasets` over HTTP: every way in, every way to look, and the refusals."""

import gzip
import hashlib
import json
import time

import httpx
import pytest
import zstandard
from api_server import RunningApi, pairs, pointers
from backends import PROJECT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.storage import keys

PAIRS = pairs()


@pytest.fixture(scope="module")
def uploaded(api: RunningApi) -> dict[str, object]:
    response = api.http.post("/datasets", params={"name": "first"}, content=PAIRS)
    assert response.status_code == 201, response.text
    dataset: dict[str, object] = response.json()
    return dataset


def test_a_raw_upload_is_checked_and_kept(api: RunningApi, uploaded: dict[str, object]) -> None:
    assert uploaded["name"] == "first"
    assert (uploaded["status"], uploaded["kind"]) == ("ready", "preference")
    assert uploaded["sha256"] == hashlib.sha256(PAIRS).hexdigest()
    assert uploaded["num_bytes"] == len(PAIRS)
    assert (uploaded["num_rows"], uploaded["num_accepted"], uploaded["num_rejected"]) == (3, 3, 0)
    again = api.http.get(f"/datasets/{uploaded['id']}")
    assert again.json() == uploaded
    assert str(uploaded["created_at"]).endswith("Z")


def test_a_form_takes_its_fields_in_any_order(api: RunningApi) -> None:
    parts: list[tuple[str, tuple[str | None, bytes]]] = [
        ("metadata", (None, b'{"team": "a"}')),
        ("file", ("../etc/p\u00e4irs.jsonl", PAIRS)),
        ("kind", (None, b"preference")),
        ("name", (None, b"")),
        ("columns", (None, b"{}")),
    ]
    response = api.http.post("/datasets", files=parts)
    assert response.status_code == 201, response.text
    dataset = response.json()
    assert dataset["name"] == "p\u00e4irs.jsonl"  # an empty field counts as left out
    assert dataset["metadata"] == {"team": "a"}
    assert response.headers["location"] == f"/datasets/{dataset['id']}"


@pytest.mark.parametrize(
    ("encoding", "content"),
    [("gzip", gzip.compress(PAIRS)), ("zstd", zstandard.compress(PAIRS)), (None, gzip.compress(PAIRS))],
)
def test_compressed_uploads(api: RunningApi, encoding: str | None, content: bytes) -> None:
    headers = {"Content-Encoding": encoding} if encoding else {}
    response = api.http.post("/datasets", content=content, headers=headers)
    assert response.status_code == 201, response.text
    assert response.json()["num_accepted"] == 3
    assert response.json()["sha256"] == hashlib.sha256(content).hexdigest()


def test_async_upload_is_polled_until_ready(api: RunningApi) -> None:
    response = api.http.post("/datasets", content=PAIRS, headers={"Prefer": "respond-async"})
    assert response.status_code == 202, response.text
    assert response.headers["preference-applied"] == "respond-async"
    assert response.json()["status"] == "processing"
    deadline = time.monotonic() + 30
    while (dataset := api.http.get(response.headers["location"]).json())["status"] == "processing":
        assert time.monotonic() < deadline
    assert (dataset["status"], dataset["num_accepted"]) == ("ready", 3)


@pytest.mark.parametrize(
    ("path", "name"), [("content", "original"), ("rows", "rows.jsonl"), ("report", "issues.jsonl")]
)
def test_bytes_that_the_store_has_lost_are_no_404(api: RunningApi, path: str, name: str) -> None:
    dataset_id = api.http.post("/datasets", content=PAIRS).json()["id"]
    lost = api.settings.data_dir / "objects" / keys.dataset_prefix(PROJECT, dataset_id) / name
    lost.unlink()
    answer = api.http.get(f"/datasets/{dataset_id}/{path}")
    assert (answer.status_code, answer.json()["code"]) == (503, "object-missing")
    assert "restore it from a backup" in answer.json()["detail"]


def test_rows_and_content(api: RunningApi, uploaded: dict[str, object]) -> None:
    first = api.http.get(f"/datasets/{uploaded['id']}/rows", params={"limit": 2}).json()
    assert first["data"][0] == {"line": 1, **json.loads(PAIRS.splitlines()[0])}
    rest = api.http.get(f"/datasets/{uploaded['id']}/rows", params={"cursor": first["next_cursor"]}).json()
    assert [row["line"] for row in rest["data"]] == [3]
    assert rest["next_cursor"] is None
    content = api.http.get(f"/datasets/{uploaded['id']}/content")
    assert content.content == PAIRS
    assert content.headers["etag"] == f'"{uploaded["sha256"]}"'
    assert content.headers["content-disposition"].startswith("attachment;")


def test_a_rejected_file_names_every_bad_line_and_leaves_nothing(api: RunningApi) -> None:
    before = api.http.get("/datasets").json()
    content = PAIRS + b"not json\n" + b'{"prompt": "a", "chosen": "b"}\n'
    response = api.http.post("/datasets", content=content)
    assert response.status_code == 422
    problem = response.json()
    assert problem["code"] == "dataset-rejected"
    assert [issue["line"] for issue in problem["report"]["issues"] if issue["severity"] == "error"] == [4, 5]
    assert pointers(response) == ["/file"]
    assert api.http.get("/datasets").json() == before

    kept = api.http.post("/datasets", params={"on_error": "skip"}, content=content)
    assert kept.status_code == 201, kept.text
    assert (kept.json()["num_accepted"], kept.json()["num_rejected"]) == (3, 2)
    issues = api.http.get(f"/datasets/{kept.json()['id']}/report").json()
    assert [issue["line"] for issue in issues["data"]] == [4, 5]


def test_an_empty_file_and_a_file_of_another_kind(api: RunningApi) -> None:
    empty = api.http.post("/datasets", files={"file": ("a.jsonl", b"")})
    assert (empty.status_code, pointers(empty)) == (422, ["/file"])
    demonstration = api.http.post("/datasets", content=b'{"prompt": "a", "response": "b"}\n')
    assert (demonstration.status_code, pointers(demonstration)) == (422, ["/kind"])
    assert "demonstration" in demonstration.json()["detail"]
    binary = api.http.post("/datasets", content=b"PK\x03\x04" + bytes(100))
    assert binary.status_code == 415


@pytest.mark.parametrize(
    ("params", "pointer"),
    [
        ({"kind": "pairs"}, "/kind"),
        ({"on_error": "ignore"}, "/on_error"),
        ({"columns": "prompt"}, "/columns"),
        ({"columns": '{"prompt": 1}'}, "/columns/prompt"),
        ({"metadata": '{"a": "\\u0000"}'}, "/metadata/a"),
        ({"name": "a\x00b"}, "/name"),
        ({"format": "mystery"}, "/format"),
        ({"colums": "{}"}, "/colums"),
    ],
)
def test_bad_options_are_named(api: RunningApi, params: dict[str, str], pointer: str) -> None:
    for response in (
        api.http.post("/datasets", params=params, content=PAIRS),
        api.http.post("/datasets", data=params, files={"file": ("a.jsonl", PAIRS)}),
    ):
        assert response.status_code == 422, response.text
        assert pointers(response) == [pointer]


def test_forms_that_are_no_upload(api: RunningApi) -> None:
    def send(files: list[tuple[str, tuple[str | None, bytes]]]) -> httpx.Response:
        return api.http.post("/datasets", files=files)

    assert pointers(send([("name", (None, b"x"))])) == ["/file"]
    assert pointers(send([("data", ("a.jsonl", PAIRS))])) == ["/data"]
    assert pointers(send([("file", ("a", PAIRS)), ("file", ("b", PAIRS))])) == ["/file"]
    twice = api.http.post("/datasets", params={"name": "a"}, data={"name": "b"}, files={"file": ("a", PAIRS)})
    assert pointers(twice) == ["/name"]
    cut = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nabc'
    for boundary in ("multipart/form-data; boundary=x", "multipart/form-data"):
        response = api.http.post("/datasets", content=cut, headers={"Content-Type": boundary})
        assert (response.status_code, response.json()["code"]) == (400, "malformed-upload")


def test_name_and_metadata_are_changed(api: RunningApi) -> None:
    made = api.http.post(
        "/datasets", params={"name": "before", "metadata": '{"a": "1"}'}, content=pairs(), headers={"Prefer": ""}
    ).json()
    path = f"/datasets/{made['id']}"
    renamed = api.http.patch(path, json={"name": "after"})
    assert (renamed.status_code, renamed.json()) == (200, {**made, "name": "after"})
    assert api.http.get(path).json()["name"] == "after"
    assert api.http.patch(path, json={"metadata": {"b": "2"}}).json()["metadata"] == {"b": "2"}
    emptied = api.http.patch(path, json={"name": None, "metadata": None}).json()
    assert (emptied["name"], emptied["metadata"]) == ("dataset", {})
    assert api.http.patch(path, json={}).json() == emptied
    for body, pointer in (
        ({"name": ""}, "/name"),
        ({"kind": "unpaired"}, "/kind"),
        ({"metadata": {"a": 1}}, "/metadata/a"),
    ):
        refused = api.http.patch(path, json=body)
        assert (refused.status_code, pointers(refused)) == (422, [pointer])
    assert api.http.patch("/datasets/ds_nope", json={"name": "x"}).json()["code"] == "dataset-not-found"


def test_deleting(api: RunningApi) -> None:
    job = api.submit()
    in_use = api.http.delete(f"/datasets/{job['spec']['dataset_id']}")
    assert (in_use.status_code, in_use.json()["code"]) == (409, "dataset-in-use")
    api.http.post(f"/jobs/{job['id']}/cancel")
    dataset_id = api.dataset_id("ds_deleted")
    gone = api.http.delete(f"/datasets/{dataset_id}")
    assert (gone.status_code, gone.content) == (204, b"")
    assert api.http.get(f"/datasets/{dataset_id}").json()["code"] == "dataset-not-found"


@settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    head=st.sampled_from([b"", b"[", b"{", b"PAR1", b"\x1f\x8b\x08\x00", b"\x28\xb5\x2f\xfd", b"\xff\xfe", b"a,b\n"]),
    content=st.binary(max_size=200),
    cut=st.integers(1, 300),
    way=st.sampled_from(["raw", "form", "gzip", "zstd", "chunks"]),
)
def test_any_bytes_are_answered(api: RunningApi, head: bytes, content: bytes, cut: int, way: str) -> None:
    body = head + content
    if way == "form":
        response = api.http.post("/datasets", files={"file": ("a.jsonl", body)})
    elif way == "chunks":
        response = api.http.post("/datasets", content=iter([body[:cut], body[cut:]]))
    else:
        headers = {} if way == "raw" else {"Content-Encoding": way}
        response = api.http.post("/datasets", content=body, headers=headers)
    assert response.status_code in (201, 413, 415, 422), response.text
    assert response.json()["report"]["counts"] or response.status_code == 201


def test_the_same_rows_sent_in_any_way_get_the_same_report(api: RunningApi) -> None:
    content = pairs(50) + pairs(3) + b'{"prompt": "a", "chosen": "b", "rejected": "b"}\n'
    reports = []
    for body, headers in (
        (content, {}),
        (iter([content[start : start + 7] for start in range(0, len(content), 7)]), {}),
        (gzip.compress(content), {"Content-Encoding": "gzip"}),
        (zstandard.compress(content), {}),
    ):
        report = api.http.post("/datasets", content=body, headers=headers).json()["report"]
        report["statistics"].pop("compression")
        reports.append(report)
    assert all(report == reports[0] for report in reports)
    assert reports[0]["counts"]["duplicate-row"] == 3
    assert reports[0]["counts"]["identical-pair"] == 1
