"""Files that a runner fetches for a model."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from backends import PROJECT

from core.domain.jobs.stored_files import StoredTree
from core.services.access.disk_reserve import DiskReserveReached
from core.services.backend import Backend
from core.services.chat.served_models import ServedModel
from core.storage.trees import upload_tree
from worker.runner.files import fetch_model


def policy(backend: Backend, folder: Path) -> ServedModel:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "report.html").write_text("not needed")
    tree = upload_tree(backend.store, f"{PROJECT}/policy/", folder)
    stored = StoredTree(prefix=tree.prefix, manifest_sha256=tree.manifest_sha256)
    return ServedModel(name="job_1", base_name="tiny", policy=stored, root_name="tiny")


def test_a_whole_policy_is_fetched_without_what_no_model_needs(backend: Backend, tmp_path: Path) -> None:
    files = fetch_model(backend, policy(backend, tmp_path / "policy"), tmp_path / "work", lambda: None)
    assert sorted(path.name for path in files.model_dir.iterdir()) == ["config.json", "model.safetensors"]
    assert (files.model_dir / "model.safetensors").read_bytes() == b"weights"
    assert files.adapter_dir is None


def test_the_reserve_of_the_disk_is_left_to_jobs(backend: Backend, tmp_path: Path) -> None:
    full = replace(backend, settings=backend.settings.model_copy(update={"disk_reserve_bytes": 2**60}))
    with pytest.raises(DiskReserveReached):
        fetch_model(full, policy(backend, tmp_path / "policy"), tmp_path / "work", lambda: None)
