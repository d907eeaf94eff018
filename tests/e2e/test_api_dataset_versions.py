"""Versions of datasets over HTTP: answers, errors, idempotency, the client and its commands."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from api_server import RunningApi, pairs, pointers
from typer.testing import CliRunner

from preftune import Client
from preftune.cli.main import app


@pytest.fixture
def quiet_log() -> Iterator[None]:
    """The service runs in this process: its log must not come between what a command prints."""
    before = structlog.get_config()
    with Path(os.devnull).open("w") as nowhere:
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(nowhere))
        yield
        structlog.configure(**before)


@pytest.fixture
def dataset_id(api: RunningApi) -> str:
    return str(api.http.post("/datasets", content=pairs(12)).json()["id"])


def post(api: RunningApi, path: str, body: dict[str, Any], **headers: str) -> httpx.Response:
    return api.http.post(path, json=body, headers=headers)


ROW = {"prompt": "Why?", "chosen": "Because.", "rejected": "No."}


def test_a_version_is_made_once_for_a_key(api: RunningApi, dataset_id: str) -> None:
    path, key = f"/datasets/{dataset_id}/versions", {"Idempotency-Key": f"version-{dataset_id}"}
    made = post(api, path, {"rows": [ROW]}, **key)
    assert made.status_code == 201, made.text
    version = made.json()
    assert (version["id"], version["version"]) == (f"{dataset_id}@2", 2)
    assert made.headers["location"] == f"/datasets/{dataset_id}@2"
    assert post(api, path, {"rows": [ROW]}, **key).json()["id"] == version["id"]
    assert post(api, path, {"rows": [ROW, ROW]}, **key).status_code == 422
    listed = api.http.get(path, params={"limit": 1}).json()
    assert [item["id"] for item in listed["data"]] == [version["id"]]
    rest = api.http.get(path, params={"cursor": listed["next_cursor"]}).json()
    assert [item["version"] for item in rest["data"]] == [1]
    newest = api.http.get(f"/datasets/{dataset_id}")
    assert (newest.json()["id"], newest.json()["version"]) == (dataset_id, 2)
    assert api.http.get(made.headers["location"]).json() == version
    unchanged = api.http.get(f"/datasets/{dataset_id}", headers={"If-None-Match": newest.headers["etag"]})
    assert unchanged.status_code == 304


def test_a_version_can_be_checked_after_the_answer(api: RunningApi, dataset_id: str) -> None:
    made = post(api, f"/datasets/{dataset_id}/versions", {"rows": [ROW]}, Prefer="respond-async")
    assert (made.status_code, made.json()["status"]) == (202, "processing")
    assert made.headers["preference-applied"] == "respond-async"
    client = Client(api.url)
    assert client.datasets.get(dataset_id)["version"] in (1, 2)  # the newest that is ready
    while api.http.get(made.headers["location"]).json()["status"] == "processing":
        continue
    assert client.datasets.get(dataset_id)["version"] == 2


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({}, []),
        ({"rows": [{"prompt": "only"}]}, ["/rows"]),
        ({"append": ["ds_none"]}, ["/append/0"]),
        ({"drop_lines": [10_000]}, ["/drop_lines"]),
        ({"drop_lines": [1], "swap_lines": [1]}, [""]),
        ({"append": ["x"] * 33}, ["/append"]),
    ],
)
def test_a_fault_is_named_by_its_place(
    api: RunningApi, dataset_id: str, body: dict[str, Any], where: list[str]
) -> None:
    refused = post(api, f"/datasets/{dataset_id}/versions", body)
    assert refused.status_code == 422, refused.text
    assert pointers(refused) == where
    assert api.http.get(f"/datasets/{dataset_id}").json()["version"] == 1


def test_merge_split_and_diff(api: RunningApi, dataset_id: str) -> None:
    merged = post(api, "/datasets/merge", {"dataset_ids": [dataset_id, dataset_id], "drop_duplicates": True}).json()
    before = api.http.get(f"/datasets/{dataset_id}").json()
    assert merged["num_accepted"] == before["num_accepted"]
    split = {"fractions": [0.5, 0.5], "seed": 3}
    path, key = f"/datasets/{merged['id']}/split", {"Idempotency-Key": f"split-{merged['id']}"}
    parts = post(api, path, split, **key)
    assert parts.status_code == 201, parts.text
    assert sum(part["num_accepted"] for part in parts.json()["data"]) == before["num_accepted"]
    assert post(api, path, split, **key).json() == parts.json()
    assert post(api, path, {"fractions": [0.5, 0.4]}).status_code == 422
    found = api.http.get(f"/datasets/{merged['id']}/diff", params={"against": dataset_id})
    assert found.status_code == 200
    assert (found.json()["num_equal"], found.json()["data"]) == (before["num_accepted"], [])
    missing = api.http.get(f"/datasets/{merged['id']}/diff", params={"against": "ds_none"})
    assert missing.json()["code"] == "dataset-not-found"


@pytest.mark.usefixtures("quiet_log")
def test_the_commands_make_and_compare_versions(api: RunningApi, dataset_id: str, tmp_path: Path) -> None:
    def run(*words: str) -> str:
        result = CliRunner().invoke(app, ["datasets", *words, "--url", api.url], env={"COLUMNS": "200"})
        assert result.exit_code == 0, result.output
        return result.output

    other = str(api.http.post("/datasets", content=json.dumps(ROW).encode() + b"\n").json()["id"])
    assert run("change", dataset_id, "--append", other, "--drop-line", "1").split()[-1] == f"{dataset_id}@2"
    shown = run("diff", dataset_id, f"{dataset_id}@1")
    found = json.loads(shown[shown.index("{") :])
    assert (found["num_added"], found["num_removed"]) == (1, 1)
    assert f"{dataset_id}@2" in run("versions", dataset_id)
    merged = run("merge", dataset_id, other, "--name", "all").split()[-1]
    assert Client(api.url).datasets.get(merged)["name"] == "all"
