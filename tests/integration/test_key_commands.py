"""`preftune keys` and `preftune projects`: what an operator types, on the service's own database."""

import re
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from cli.main import app
from core.database.migrate import upgrade
from core.domain.access import Scope
from core.services.access import api_keys
from core.services.backend import open_backend
from core.settings import load_settings


@pytest.fixture(autouse=True)
def _service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFTUNE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "data").mkdir()
    upgrade(load_settings().effective_database_url)


def preftune(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def grant_of(token: str) -> api_keys.Grant | None:
    backend = open_backend(load_settings())
    try:
        return api_keys.authenticate(backend, token)
    finally:
        backend.close()


def test_a_key_from_its_making_to_its_end() -> None:
    made = preftune("keys", "create", "ci", "--scope", "read")
    token = made.stdout.strip()
    assert re.fullmatch(r"pt_[0-9a-z]{26}_[0-9a-f]{64}", token), made.output
    grant = grant_of(token)
    assert grant is not None
    assert grant.scope is Scope.READ
    listed = preftune("keys", "list").stdout
    assert (grant.key_id in listed, "ci" in listed, "works" in listed) == (True, True, True)
    assert token.rpartition("_")[2] not in listed
    newer = preftune("keys", "rotate", grant.key_id).stdout.strip()
    assert grant_of(token) is not None
    assert grant_of(newer) is not None
    assert preftune("keys", "revoke", grant.key_id).exit_code == 0
    assert grant_of(token) is None
    assert "revoked" in preftune("keys", "list").stdout


def test_a_project_and_its_limits() -> None:
    assert preftune("projects", "create", "research").exit_code == 0
    assert preftune("keys", "create", "x", "--project", "research", "--days", "2").exit_code == 0
    assert preftune("projects", "limit", "research", "--queued-jobs", "3", "--stored-bytes", "1000").exit_code == 0
    line = next(line for line in preftune("projects", "list").stdout.splitlines() if "research" in line)
    assert "0 of 1,000" in line
    assert "0 of 3" in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("keys", "create", "x", "--scope", "all"), "read, write, admin"),
        (("keys", "create", "x", "--project", "nowhere"), "no project nowhere"),
        (("keys", "revoke", "key_x"), "no key key_x"),
        (("projects", "create", "Bad Name"), "a-z"),
        (("projects", "limit", "default", "--queued-jobs", "-1"), "not negative"),
    ],
)
def test_mistakes_are_one_sentence(arguments: tuple[str, ...], words: str) -> None:
    result = preftune(*arguments)
    assert result.exit_code == 1
    assert words in " ".join(result.output.split())


def test_a_database_that_was_never_set_up_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFTUNE_DATA_DIR", str(tmp_path / "other"))
    (tmp_path / "other").mkdir()
    result = preftune("keys", "list")
    assert result.exit_code == 1
    assert "preftune migrate" in " ".join(result.output.split())
