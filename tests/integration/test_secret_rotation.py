"""Secrets in files are replaced while the service runs: bootstrap keys, the database's password, the store's keys."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from api_server import serve
from servers import run_postgresql
from sqlalchemy import text

from core.database.session import DatabaseUnavailable
from core.secret_file import SecretFile
from core.services.backend import open_backend
from core.settings import load_settings
from core.storage.open_store import open_store
from core.storage.s3 import S3ObjectStore
from core.telemetry.logging import redactor_of

OLD, NEW = "pt_old_0123456789abcdef0123456789abcdef", "pt_new_0123456789abcdef0123456789abcdef"


def wait_for(condition: Callable[[], bool], seconds: float = 8) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_bootstrap_keys_are_replaced_with_both_valid_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "key"
    path.write_text(f"{OLD}\n")
    monkeypatch.setenv("PREFTUNE_API_KEY_FILE", str(path))
    with serve(tmp_path, from_files=True) as api:

        def status(key: str) -> int:
            return api.http.get("/jobs", headers={"Authorization": f"Bearer {key}"}).status_code

        assert (status(OLD), status(NEW)) == (200, 401)
        path.write_text(f"{NEW}\n{OLD}\n")
        wait_for(lambda: status(NEW) == 200)
        assert status(OLD) == 200, "both, until the old line goes"
        session = api.http.post("/ui/session", json={"api_key": OLD}, headers={"Origin": api.url})
        assert session.status_code == 204
        path.write_text(f"{NEW}\n")
        wait_for(lambda: status(OLD) == 401)
        assert status(NEW) == 200
        path.write_text("")
        time.sleep(2.2)
        assert (status(NEW), status("x")) == (200, 401), "an empty file opens nothing"


def test_the_databases_password_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with run_postgresql() as server:
        url = server.create_database("rotating")
        admin = open_backend(load_settings(data_dir=tmp_path / "admin", database_url=url))

        def as_admin(statement: str) -> None:
            admin.database.write(lambda session: session.execute(text(statement)))

        as_admin("CREATE ROLE rotating LOGIN PASSWORD 'first-password'")
        hba = server.work / "data" / "pg_hba.conf"
        hba.write_text(f"host all rotating 127.0.0.1/32 scram-sha-256\n{hba.read_text()}")
        as_admin("SELECT pg_reload_conf()")
        path = tmp_path / "password"
        path.write_text("first-password\n")
        monkeypatch.setenv("PREFTUNE_DATABASE_PASSWORD_FILE", str(path))
        own = f"postgresql://rotating@127.0.0.1:{server.port}/rotating"
        backend = open_backend(load_settings(data_dir=tmp_path / "own", database_url=own))

        def ask() -> object:
            return backend.database.read(lambda session: session.scalar(text("SELECT current_user")))

        assert ask() == "rotating"
        as_admin("ALTER ROLE rotating PASSWORD 'second-password'")
        as_admin("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'rotating'")
        with pytest.raises(DatabaseUnavailable, match="operator"):
            ask()
        path.write_text("second-password\n")
        assert ask() == "rotating", "the next connection reads the file"
        backend.close()
        admin.close()


def test_the_stores_keys_are_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("s3_access_key_id", "first-id"), ("s3_secret_access_key", "first-secret")):
        (tmp_path / name).write_text(value)
        monkeypatch.setenv(f"PREFTUNE_{name.upper()}_FILE", str(tmp_path / name))
    settings = load_settings(storage_url="s3://bucket/x", s3_endpoint_url="http://127.0.0.1:1")
    store = open_store(settings)
    assert isinstance(store, S3ObjectStore)

    def signed() -> str:
        return str(store.download_url("key", filename="f", seconds=60))

    before = signed()
    assert "first-id" in before
    (tmp_path / "s3_secret_access_key").write_text("second-secret")
    (tmp_path / "s3_access_key_id").write_text("second-id")
    wait_for(lambda: "second-id" in signed())
    assert "first-id" not in signed()


def test_a_file_that_is_gone_changes_nothing_and_new_secrets_stay_out_of_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "key"
    path.write_text(OLD)
    secret = SecretFile(path, OLD)
    path.unlink()
    assert secret.read(max_age_seconds=0) == OLD
    path.write_text(NEW)
    assert secret.read(max_age_seconds=0) == NEW
    monkeypatch.setenv("PREFTUNE_DATABASE_PASSWORD_FILE", str(path))
    redact = redactor_of(settings := load_settings())
    path.write_text("another-secret-of-today")
    wait_for(lambda: settings.current("database_password") == "another-secret-of-today")
    for shown in ("another-secret-of-today", NEW):
        assert shown not in str(redact(None, "", {"event": f"refused {shown}"}))
