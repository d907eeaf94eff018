"""Files that a runner fetches for a model."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest
from backends import PROJECT

from core.domain.jobs.stored_files import StoredTree
from core.services.access.disk_reserve import DiskReserveReached
from core.services.backend import Backend
from core.services.chat.model_parts import find_parts
from core.services.chat.runner import ModelNotServed, ModelTooLarge
from core.services.chat.served_models import ServedModel
from core.storage.trees import upload_tree
from worker.runner.files import ModelFiles, fetch_model
from worker.runner.limits import RunnerLimits
from worker.runner.pool import ModelPool
from worker.runner.sizes import OVERHEAD_BYTES, measure
from worker.scratch import WorkerScratch

CONFIG = {
    "model_type": "llama",
    "max_position_embeddings": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_size": 32,
}
HEADER = json.dumps({"weight": {"dtype": "BF16", "shape": [5, 7], "data_offsets": [0, 70]}}).encode()
WEIGHTS = len(HEADER).to_bytes(8, "little") + HEADER + bytes(70)


def policy(backend: Backend, folder: Path) -> ServedModel:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    (folder / "report.html").write_text("not needed")
    tree = upload_tree(backend.store, f"{PROJECT}/policy/", folder)
    stored = StoredTree(prefix=tree.prefix, manifest_sha256=tree.manifest_sha256)
    return ServedModel(name="job_1", base_name="tiny", policy=stored, root_name="tiny")


def fetch(backend: Backend, model: ServedModel, work_dir: Path) -> ModelFiles:
    return fetch_model(backend, model, find_parts(backend, model), work_dir, lambda: None)


def test_a_whole_policy_is_fetched_without_what_no_model_needs(backend: Backend, tmp_path: Path) -> None:
    files = fetch(backend, policy(backend, tmp_path / "policy"), tmp_path / "work")
    assert sorted(path.name for path in files.model_dir.iterdir()) == ["config.json", "model.safetensors"]
    assert (files.model_dir / "model.safetensors").read_bytes() == WEIGHTS
    assert files.adapter_dir is None


def test_the_reserve_of_the_disk_is_left_to_jobs(backend: Backend, tmp_path: Path) -> None:
    full = replace(backend, settings=backend.settings.model_copy(update={"disk_reserve_bytes": 2**60}))
    with pytest.raises(DiskReserveReached):
        fetch(full, policy(backend, tmp_path / "policy"), tmp_path / "work")


def test_a_size_is_read_in_the_store(backend: Backend, tmp_path: Path) -> None:
    model = policy(backend, tmp_path / "policy")
    size = measure(backend, model, find_parts(backend, model))
    assert (size.num_parameters, size.context(100), size.context(10)) == (35, 64, 10)
    assert size.needed_bytes("bf16", 2) == 2 * (35 + 2 * (2 * 3 * 2 * 8)) + OVERHEAD_BYTES
    assert model.policy is not None
    backend.store.put_bytes(f"{model.policy.prefix}model.safetensors", WEIGHTS[:-1])
    with pytest.raises(ModelNotServed, match="damaged"):
        fetch(backend, model, tmp_path / "work")


def test_what_does_not_fit_is_refused_before_it_is_fetched(
    backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = policy(backend, tmp_path / "policy")
    limits = replace(RunnerLimits.of(backend.settings), memory_bytes=OVERHEAD_BYTES)
    fetched: list[str] = []
    monkeypatch.setattr(backend.store, "get_file", lambda key, _target: fetched.append(key))

    async def ask() -> None:
        pool = ModelPool(backend, WorkerScratch(tmp_path / "scratch"), limits)
        for _ in range(2):
            with pytest.raises(ModelTooLarge, match="PREFTUNE_RUNNER_MEMORY_BYTES"):
                async with pool.use(model):
                    raise AssertionError
        await pool.close()

    asyncio.run(ask())
    assert fetched == []
