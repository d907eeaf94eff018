"""`preftune doctor` finds what is wrong with a deployment, and says of a good one that it is."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import S3Server, free_port, run_s3
from typer.testing import CliRunner

from cli.main import app
from core.database.migrate import upgrade
from core.services.access import projects
from core.services.backend import open_backend
from core.settings import load_settings
from worker import device


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with run_s3() as server:
        yield server


@pytest.fixture
def environment(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    (tmp_path / "data").mkdir()
    upgrade(f"sqlite:///{tmp_path}/data/preftune.db")
    defaults = {
        "DATA_DIR": tmp_path / "data",
        "MODELS_DIR": tiny_model.parent,
        "DEVICE": "cpu",
        "API_KEY": "canary-key",
    }

    def set_all(**changes: Any) -> None:
        for name, value in (defaults | changes).items():
            monkeypatch.setenv(f"PREFTUNE_{name}", str(value))

    monkeypatch.chdir(tmp_path)
    return set_all


def findings() -> tuple[int, dict[str, list[str]]]:
    result = CliRunner().invoke(app, ["doctor"])
    lines = [
        line.split(maxsplit=1) for line in result.stdout.replace("base models", "base-models").splitlines() if line
    ]
    return result.exit_code, {name: rest.split(maxsplit=1) for name, rest in lines}


def test_a_good_deployment(environment: Callable[..., None], s3: S3Server) -> None:
    environment(
        STORAGE_URL="s3://doctor/prefix",
        S3_ENDPOINT_URL=s3.endpoint_url,
        S3_ACCESS_KEY_ID=s3.access_key_id,
        S3_SECRET_ACCESS_KEY=s3.secret_access_key,
    )
    code, found = findings()
    assert {name: state for name, (state, _) in found.items() if name != "disk"} == {
        "data-dir": "ok",
        "database": "ok",
        "clock": "ok",
        "store": "ok",
        "broker": "ok",
        "base-models": "ok",
        "keys": "ok",
        "quotas": "ok",
        "nodes": "ok",
        "device": "ok",
    }
    assert "33 MiB in parts" in found["store"][1]
    assert code == 0


@pytest.mark.parametrize(
    ("changes", "name", "words"),
    [
        ({"DATABASE_URL": "postgresql://preftune@127.0.0.1:1/x"}, "database", "does not answer"),
        ({"BROKER_URL": "redis://127.0.0.1:1/0"}, "broker", "does not answer"),
        ({"DEVICE": "cuda:7"}, "device", "is not here"),
        ({"DEVICE": "cuda:0", "NUM_DEVICES": 3}, "device", "PREFTUNE_NUM_DEVICES: 3 from cuda:0 on are not here"),
    ],
)
def test_what_is_wrong_is_named(
    environment: Callable[..., None], monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], name: str, words: str
) -> None:
    monkeypatch.setattr(device, "probe_gpus", lambda: ["one GPU", "another"])
    environment(**changes)
    code, found = findings()
    assert found[name][0] == "failed"
    assert words in found[name][1]
    assert code == 1


def test_devices_that_train_together_are_counted(
    environment: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "probe_gpus", lambda: ["one GPU", "another"])
    environment(DEVICE="cuda:0", NUM_DEVICES=2)
    code, found = findings()
    assert (code, found["device"]) == (0, ["ok", "2 x one GPU"])


def test_a_store_that_is_away(environment: Callable[..., None]) -> None:
    environment(
        STORAGE_URL="s3://doctor",
        S3_ENDPOINT_URL=f"http://127.0.0.1:{free_port()}",
        S3_ACCESS_KEY_ID="a",
        S3_SECRET_ACCESS_KEY="canary-secret",
    )
    code, found = findings()
    assert (code, found["store"][0]) == (1, "failed")
    assert "canary" not in str(found)


def test_what_is_odd_is_a_warning(environment: Callable[..., None], tmp_path: Path) -> None:
    environment(MODELS_DIR=tmp_path / "none")
    code, found = findings()
    assert (code, found["base-models"][0]) == (0, "warning")


def test_wrong_settings_stop_it(environment: Callable[..., None]) -> None:
    environment(BROKER_URL="amqp://x")
    assert CliRunner().invoke(app, ["doctor"]).exit_code == 2


def test_full_and_boundless_projects_and_a_reached_reserve_are_named(environment: Callable[..., None]) -> None:
    environment()
    backend = open_backend(load_settings())
    projects.set_limits(backend, "default", projects.Limits(max_stored_bytes=0))
    _, found = findings()
    assert found["quotas"] == ["warning", "default stores 0 of 0 bytes"]
    projects.set_limits(backend, "default", projects.Limits(max_stored_bytes=10))
    projects.create(backend, "vision")
    _, found = findings()
    assert found["quotas"][0] == "warning"
    assert "no bound on what vision may store" in found["quotas"][1]
    backend.close()
    environment(DISK_RESERVE_BYTES=str(2**62))
    code, found = findings()
    assert found["disk"][0] == "failed"
    assert "no upload and no job is taken in" in found["disk"][1]
    assert code == 1
