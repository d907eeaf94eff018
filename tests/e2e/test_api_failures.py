"""When something behind the API fails: told as a problem, never as an exception."""

from collections.abc import Callable
from typing import Any

import pytest
from api_server import RunningApi

from core.database.session import Database, DatabaseUnavailable
from core.storage.local import LocalObjectStore
from core.storage.object_store import StoreUnavailable


def failing(error: Exception) -> Callable[..., Any]:
    def fail(*_args: Any, **_kwargs: Any) -> Any:
        raise error

    return fail


def test_an_unexpected_error_is_told_without_its_text(api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.services.jobs.jobs.list_page", failing(RuntimeError("secret in /etc/path")))
    response = api.http.get("/jobs")
    assert (response.status_code, response.json()["code"]) == (500, "internal-error")
    assert response.json()["request_id"] == response.headers["x-request-id"]
    assert "secret" not in response.text
    assert "Traceback" not in response.text
    assert api.http.get("/variants").status_code == 200


def test_a_database_that_is_away_is_503(api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("read", "write"):
        monkeypatch.setattr(Database, name, failing(DatabaseUnavailable("It does not answer.")))
    body = {"base_model": "tiny", "dataset_id": "ds_1"}
    for response in (api.http.get("/jobs"), api.http.post("/jobs", json=body, headers={"Idempotency-Key": "k"})):
        assert (response.status_code, response.json()["code"]) == (503, "database-unavailable")
        assert int(response.headers["retry-after"]) > 0


def test_readiness_follows_what_is_behind(api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.readiness.MAX_AGE_SECONDS", -1.0)
    ready = api.http.get("/health/ready").json()
    del ready["versions"]  # where there is no key, this machine is the admin's
    assert ready == {"status": "ok", "database": "ok", "store": "ok", "broker": "ok"}
    with monkeypatch.context() as patch:
        patch.setattr(LocalObjectStore, "check", failing(StoreUnavailable("away")))
        down = api.http.get("/health/ready")
        assert (down.status_code, down.json()["code"]) == (503, "not-ready")
        assert (down.json()["store"], down.json()["database"]) == ("down", "ok")
        assert api.http.get("/health/live").status_code == 200
    with monkeypatch.context() as patch:
        patch.setattr(type(api.backend.queue), "check", failing(DatabaseUnavailable("away")))
        degraded = api.http.get("/health/ready")
        assert (degraded.status_code, degraded.json()["status"], degraded.json()["broker"]) == (200, "degraded", "down")
    assert api.http.get("/health/ready").json()["status"] == "ok"
