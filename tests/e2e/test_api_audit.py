"""Audit trail and log over HTTP: who did what and from where, behind a proxy too; admins see their project's."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from api_server import RunningApi, pairs, serve
from structlog.testing import capture_logs
from typer.testing import CliRunner

from cli.main import app
from core.domain.access import Scope
from core.services.access import api_keys, projects

CLIENT = "203.0.113.9"
FORWARDED = {"X-Forwarded-For": f"1.2.3.4, {CLIENT}"}


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    with serve(Path(tmp_path_factory.mktemp("proxied")), trusted_proxies="127.0.0.1") as api:
        projects.create(api.backend, "other")
        yield api


def key(api: RunningApi, scope: Scope, project_id: str = "default") -> tuple[str, dict[str, str]]:
    made = api_keys.create(api.backend, project_id, scope.value, scope)
    return made.key.id, {"Authorization": f"Bearer {made.token}", **FORWARDED}


def test_an_act_is_told_by_key_project_and_address(proxied: RunningApi) -> None:
    key_id, headers = key(proxied, Scope.ADMIN)
    with capture_logs() as lines:
        made = proxied.http.post("/datasets", content=pairs(), headers=headers | {"X-Request-ID": "mine-1"})
        assert made.status_code == 201
        events = proxied.http.get("/audit", params={"key_id": key_id}, headers=headers).json()["data"]
    assert [(event["action"], event["object_id"]) for event in events] == [("dataset.create", made.json()["id"])]
    (event,) = events
    assert (event["actor"], event["address"], event["request_id"]) == (key_id, CLIENT, "mine-1")
    assert (event["project_id"], event["outcome"]) == ("default", "done")
    assert event["detail"]["sha256"] == made.json()["sha256"]
    line = next(line for line in lines if line["event"] == "request" and line["method"] == "POST")
    assert (line["key_id"], line["project_id"], line["client"]) == (key_id, "default", CLIENT)


def test_without_trust_the_address_is_that_of_the_connection(tmp_path: Path) -> None:
    with serve(tmp_path) as api:
        _, headers = key(api, Scope.ADMIN)
        api.http.post("/datasets", content=pairs(), headers=headers)
        (event,) = api.http.get("/audit", headers=headers).json()["data"]
        assert event["address"] == "127.0.0.1"


def test_what_a_key_was_refused_is_recorded_within_bounds(proxied: RunningApi) -> None:
    key_id, headers = key(proxied, Scope.READ)
    for _ in range(30):
        assert proxied.http.delete("/jobs/job_1", headers=headers).status_code == 403
    _, operator = key(proxied, Scope.OPERATOR)
    events = proxied.http.get("/audit", params={"key_id": key_id}, headers=operator).json()["data"]
    assert {(event["action"], event["outcome"]) for event in events} == {("access.refused", "refused")}
    assert {event["object_id"] for event in events} == {"DELETE /jobs/job_1"}
    assert 1 <= len(events) <= 3


def test_an_admin_is_told_of_its_project_and_an_operator_of_all(proxied: RunningApi) -> None:
    _, theirs = key(proxied, Scope.ADMIN, "other")
    _, operator = key(proxied, Scope.OPERATOR)
    _, writer = key(proxied, Scope.WRITE, "other")
    made = proxied.http.post("/datasets", content=pairs(), headers=writer).json()["id"]
    seen = proxied.http.get("/audit", params={"limit": 100}, headers=theirs).json()["data"]
    assert {event["project_id"] for event in seen} == {"other"}
    assert made in {event["object_id"] for event in seen}
    foreign = {"project_id": "default"}
    assert proxied.http.get("/audit", params=foreign, headers=theirs).json() == {"data": [], "next_cursor": None}
    assert proxied.http.get("/audit", params=foreign, headers=operator).json()["data"]
    assert proxied.http.get("/audit", headers=writer).status_code == 403
    for path in ("/metrics",):
        assert proxied.http.get(path, headers=theirs).json()["code"] == "scope-missing"
        assert proxied.http.get(path, headers=operator).status_code == 200
    assert "versions" not in proxied.http.get("/health/ready", headers=theirs).json()
    assert "disks" not in proxied.http.get("/usage", headers=theirs).json()
    assert "disks" in proxied.http.get("/usage", headers=operator).json()


def test_nothing_changes_or_deletes_an_event(proxied: RunningApi) -> None:
    _, operator = key(proxied, Scope.OPERATOR)
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        answer = proxied.http.request(method, "/audit", headers=operator)
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


def test_the_command_filters_and_prints_json(proxied: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    key_id, headers = key(proxied, Scope.ADMIN)
    made = proxied.http.post("/datasets", content=pairs(), headers=headers).json()["id"]
    monkeypatch.setenv("PREFTUNE_API_KEY", headers["Authorization"].removeprefix("Bearer "))
    result = CliRunner().invoke(app, ["audit", "--url", proxied.url, "--key", key_id, "--json"])
    assert result.exit_code == 0, result.output
    (event,) = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    assert (event["action"], event["object_id"]) == ("dataset.create", made)
    monkeypatch.setenv("COLUMNS", "200")
    table = CliRunner().invoke(app, ["audit", "--url", proxied.url, "--object", made]).stdout
    assert made in table
    assert "dataset.create" in table


def test_a_wrong_filter_is_named(proxied: RunningApi) -> None:
    _, headers = key(proxied, Scope.ADMIN)
    answer = httpx.get(f"{proxied.url}/audit?since=yesterday", headers=headers)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/since")
