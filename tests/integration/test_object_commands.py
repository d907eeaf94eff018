"""`preftune objects check`: what an operator types to know whether the store still has everything."""

from pathlib import Path

import pytest
from backends import BASE_MODEL, PROJECT, add_dataset, claim, make_base_model, publication, submit
from typer.testing import CliRunner

from cli.main import app
from core.database.migrate import upgrade
from core.services.attempts import lifecycle
from core.services.backend import open_backend
from core.services.datasets import datasets
from core.services.jobs import artifacts
from core.settings import load_settings
from core.storage import keys


def test_check_tells_what_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFTUNE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "300")
    (tmp_path / "data").mkdir()
    upgrade(load_settings().effective_database_url)
    make_base_model(tmp_path / "models" / BASE_MODEL)
    backend = open_backend(load_settings())
    try:
        job_id = submit(backend, dataset_id=add_dataset(backend)).id
        held = claim(backend)
        lifecycle.finish_succeeded(held, publication(backend, held))
        datasets.delete(backend, PROJECT, "ds_1")
        (file,) = artifacts.get(backend, PROJECT, job_id).files
        whole = CliRunner().invoke(app, ["objects", "check"])
        assert (whole.exit_code, whole.output.strip()) == (0, "1 object checked, 0 lost")
        backend.store.put_bytes(file.key, b"WEIGHTS")
        assert CliRunner().invoke(app, ["objects", "check", "--quick"]).exit_code == 0
        damaged = CliRunner().invoke(app, ["objects", "check"])
        assert (damaged.exit_code, f"damaged: {file.key}, of {job_id}" in damaged.output) == (1, True)
        backend.store.delete(file.key)
        missing = CliRunner().invoke(app, ["objects", "check"])
        assert (missing.exit_code, f"missing: {file.key}, of {job_id}" in missing.output) == (1, True)
        assert keys.owner_of(file.key).job_id == job_id
    finally:
        backend.close()
