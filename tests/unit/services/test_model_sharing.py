"""Base models in the store: a worker gets exactly what the API holds, or is told that it is damaged."""

from dataclasses import replace
from pathlib import Path

import pytest
from backends import BASE_MODEL, make_backend

from core.base_models.directory import base_model_digest, get_base_model
from core.database.engine import open_engine
from core.database.schema import metadata
from core.database.session import Database
from core.services.backend import Backend
from core.services.base_models.sharing import ModelSharer, fetch_shared, find_shared, is_sharing
from core.services.operations.backups.holding import garbage_held
from core.settings import Settings
from core.storage import keys
from core.storage.trees import TreeDamaged


@pytest.fixture
def api(tmp_path: Path) -> Backend:
    engine = open_engine(f"sqlite:///{tmp_path / 'preftune.db'}")
    metadata.create_all(engine)
    return make_backend(tmp_path, Database(engine))


@pytest.fixture
def worker(api: Backend, tmp_path: Path) -> Backend:
    return replace(api, settings=Settings(data_dir=tmp_path / "worker", models_dir=tmp_path / "none"))


def nothing() -> None:
    return


def digest_of(folder: Path) -> str:
    return base_model_digest(get_base_model(folder.parent, folder.name))


def test_a_shared_model_is_the_same_model(api: Backend, worker: Backend) -> None:
    assert find_shared(worker.store, BASE_MODEL) is None
    ModelSharer(api).share_all()
    shared = find_shared(worker.store, BASE_MODEL)
    assert shared is not None
    folder = fetch_shared(worker, shared, check=nothing)
    assert folder.is_relative_to(worker.settings.data_dir.resolve())
    assert digest_of(folder) == digest_of(api.settings.models_dir / BASE_MODEL)
    weights = folder / "model.safetensors"
    before = weights.stat().st_ino
    assert fetch_shared(worker, shared, check=nothing) == folder
    assert weights.stat().st_ino == before, "fetched once"


def test_a_changed_model_takes_the_place_of_the_old_one(api: Backend, worker: Backend) -> None:
    sharer = ModelSharer(api)
    sharer.share_all()
    old = find_shared(api.store, BASE_MODEL)
    (api.settings.models_dir / BASE_MODEL / "tokenizer.json").write_text('{"changed": 1}')
    sharer.share_all()
    new = find_shared(api.store, BASE_MODEL)
    assert old is not None
    assert new is not None
    assert new.digest != old.digest
    assert not list(api.store.list(keys.base_model_prefix(BASE_MODEL, old.digest)))
    assert (fetch_shared(worker, new, check=nothing) / "tokenizer.json").read_text() == '{"changed": 1}'


def test_during_a_backup_the_old_model_stays(api: Backend) -> None:
    sharer = ModelSharer(api)
    sharer.share_all()
    old = find_shared(api.store, BASE_MODEL)
    assert old is not None
    (api.settings.models_dir / BASE_MODEL / "tokenizer.json").write_text('{"changed": 1}')
    with garbage_held(api):
        sharer.share_all()
        assert list(api.store.list(keys.base_model_prefix(BASE_MODEL, old.digest)))
    sharer.share_all()
    assert not list(api.store.list(keys.base_model_prefix(BASE_MODEL, old.digest)))


def test_a_model_that_is_there_is_not_copied_again(api: Backend) -> None:
    ModelSharer(api).share_all()
    pointer = api.store.stat(keys.base_model_pointer(BASE_MODEL)).modified_at
    ModelSharer(api).share_all()  # another API process
    assert api.store.stat(keys.base_model_pointer(BASE_MODEL)).modified_at == pointer


def test_a_damaged_copy_is_not_used(api: Backend, worker: Backend) -> None:
    ModelSharer(api).share_all()
    shared = find_shared(api.store, BASE_MODEL)
    assert shared is not None
    api.store.put_bytes(keys.base_model_prefix(BASE_MODEL, shared.digest) + "config.json", b"{}")
    with pytest.raises(TreeDamaged, match=r"config\.json"):
        fetch_shared(worker, shared, check=nothing)
    assert not list(worker.settings.data_dir.rglob("config.json"))
    api.store.put_bytes(keys.base_model_pointer(BASE_MODEL), b"torn")
    assert find_shared(api.store, BASE_MODEL) is None


def test_only_a_store_that_others_reach_is_shared() -> None:
    assert is_sharing(Settings(storage_url="s3://bucket"))
    assert not is_sharing(Settings())
    assert not is_sharing(Settings(storage_url="file:///objects"))
