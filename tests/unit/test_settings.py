"""Settings: a wrong name or value stops the start with a message that names it."""

from pathlib import Path
from typing import Any

import pytest

from core.database.engine import open_engine
from core.settings import Settings, SettingsError, load_settings


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_embedded_deployment_needs_no_setting(tmp_path: Path) -> None:
    settings = load_settings(data_dir=tmp_path)
    assert settings.effective_database_url == f"sqlite:///{tmp_path / 'preftune.db'}"
    assert settings.effective_storage_url == f"file://{tmp_path / 'objects'}"
    assert settings.effective_broker_url == "files"


def test_an_unknown_name_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFTUNE_DATABSE_URL", "x")
    with pytest.raises(SettingsError, match="PREFTUNE_DATABSE_URL"):
        load_settings()


def test_the_clients_own_variable_is_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFTUNE_URL", "http://127.0.0.1:1")
    assert load_settings().port == 8000


@pytest.mark.parametrize(("name", "value"), [("PORT", "seventy"), ("PORT", "70000"), ("LEASE_SECONDS", "0")])
def test_a_wrong_value_names_its_variable(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"PREFTUNE_{name}", value)
    with pytest.raises(SettingsError, match=f"PREFTUNE_{name}"):
        load_settings()


@pytest.mark.parametrize("place", ["environment", "file"])
def test_an_empty_value_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str) -> None:
    names = ("API_KEY", "KEEP_CHECKPOINTS_DAYS", "OTLP_ENDPOINT", "LOG_LEVEL", "PULSE_PATH", "API_KEY_FILE")
    if place == "environment":
        for name in names:
            monkeypatch.setenv(f"PREFTUNE_{name}", "")
    else:
        (tmp_path / ".env").write_text("".join(f"PREFTUNE_{name}=\n" for name in names))
    assert load_settings() == Settings()
    assert load_settings().api_key is None, "an empty key would let everybody in"


def test_a_lease_outlives_a_few_heartbeats() -> None:
    with pytest.raises(SettingsError, match="three times"):
        load_settings(lease_seconds=10, heartbeat_seconds=5)


def test_secrets_do_not_show(tmp_path: Path) -> None:
    settings = load_settings(data_dir=tmp_path, api_key="canary-secret", s3_secret_access_key="canary-secret")
    assert "canary-secret" not in repr(settings)
    assert "canary-secret" not in settings.model_dump_json()


def test_a_setting_may_come_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("canary-key\n")
    (tmp_path / "password").write_text("p@ss/w:rd")
    monkeypatch.setenv("PREFTUNE_API_KEY_FILE", str(tmp_path / "key"))
    monkeypatch.setenv("PREFTUNE_DATABASE_PASSWORD_FILE", str(tmp_path / "password"))
    monkeypatch.setenv("PREFTUNE_DATABASE_URL", "postgresql://preftune@db:5432/preftune")
    settings = load_settings()
    assert settings.api_key is not None
    assert settings.api_key.get_secret_value() == "canary-key"
    assert settings.effective_database_url == "postgresql://preftune:p%40ss%2Fw%3Ard@db:5432/preftune"
    assert open_engine(settings.effective_database_url).url.password == "p@ss/w:rd"


def test_a_password_in_the_url_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings(database_url="postgresql://a:b@db/c", database_password="other")
    assert settings.effective_database_url == "postgresql://a:b@db/c"


@pytest.mark.parametrize(
    ("content", "fault"), [(None, "cannot be read"), ("", "empty"), (" \n", "empty"), ("x" * 70_000, "too large")]
)
def test_a_file_that_cannot_be_used_stops_the_start(
    content: str | None, fault: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "key").write_text(content)
    monkeypatch.setenv("PREFTUNE_API_KEY_FILE", str(tmp_path / "key"))
    with pytest.raises(SettingsError, match=f"PREFTUNE_API_KEY_FILE.*{fault}"):
        load_settings()


def test_a_value_and_a_file_are_one_too_many(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("x")
    monkeypatch.setenv("PREFTUNE_API_KEY", "y")
    monkeypatch.setenv("PREFTUNE_API_KEY_FILE", str(tmp_path / "key"))
    with pytest.raises(SettingsError, match="not both"):
        load_settings()


@pytest.mark.parametrize(
    ("given", "most"),
    [({}, 18), ({"max_share": 0.01}, 8), ({"chat_max_per_key": 30}, 30), ({"chat_max_per_key": 500}, 72)],
)
def test_a_key_has_a_share_of_the_answers_that_a_runner_takes(given: dict[str, Any], most: int) -> None:
    assert Settings(**given).effective_chat_max_per_key == most
