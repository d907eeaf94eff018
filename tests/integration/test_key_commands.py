"""`preftune keys` and `preftune projects`: what an operator types, on the service's own database."""

import json
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
        (("keys", "create", "x", "--scope", "all", "--data-dir", "data"), "use, read, write, admin"),
        (("keys", "create", "x", "--project", "nowhere"), "no project nowhere"),
        (("keys", "revoke", "key_x"), "no key key_x"),
        (("projects", "create", "Bad Name"), "a-z"),
        (("projects", "limit", "default", "--queued-jobs", "-1"), "not negative"),
    ],
)
def test_mistakes_are_one_sentence(arguments: tuple[str, ...], words: str) -> None:
    result = preftune(*arguments)
    assert result.exit_code == (2 if "--scope" in arguments else 1)
    assert words in " ".join(result.output.split())


OPERATORS = (
    ("doctor",),
    ("keys", "list"),
    ("projects", "list"),
    ("objects", "check"),
    ("backup", "copies"),
    ("open", "--print"),
)


@pytest.mark.parametrize("arguments", OPERATORS, ids=" ".join)
def test_a_data_directory_that_no_service_used_is_named_and_not_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.delenv("PREFTUNE_DATA_DIR")
    monkeypatch.chdir(tmp_path / "data")
    result = preftune(*arguments)
    assert result.exit_code == 1
    told = " ".join(result.stderr.split())
    assert str(tmp_path / "data" / "data") in told.replace(" ", "")
    assert "--data-dir" in told
    assert "preftune migrate" in told
    assert not (tmp_path / "data" / "data").exists()


@pytest.mark.parametrize("arguments", OPERATORS[1:5], ids=" ".join)
def test_an_operator_names_the_data_directory_of_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.delenv("PREFTUNE_DATA_DIR")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    result = preftune(*arguments, "--data-dir", str(tmp_path / "data"))
    assert result.exit_code == 0, result.output
    assert not (tmp_path / "elsewhere" / "data").exists()


def test_lists_of_operators_are_read_by_programs(tmp_path: Path) -> None:
    for name in ("first", "second"):
        assert preftune("keys", "create", name).exit_code == 0
    listed = [json.loads(line) for line in preftune("keys", "list", "--json").stdout.splitlines()]
    assert {key["name"]: key["state"] for key in listed} == {"first": "works", "second": "works"}
    assert preftune("keys", "list", "--quiet").stdout.split() == [key["id"] for key in listed]
    one = preftune("keys", "list", "-q", "--limit", "1")
    assert one.stdout.split() == [listed[0]["id"]]
    assert "more than this 1" in one.stderr
    (project,) = (json.loads(line) for line in preftune("projects", "list", "--json").stdout.splitlines())
    assert (project["id"], project["max_queued_jobs"]) == ("default", None)
    assert preftune("projects", "list", "-q").stdout == "default\n"
