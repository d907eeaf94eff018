"""Folders that a model is made of, found and measured where they lie before anything is fetched."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from core.base_models.directory import get_base_model
from core.base_models.errors import DamagedBaseModel
from core.base_models.safetensors_header import WeightSummary, read_weights, read_weights_of
from core.domain.errors import DomainError, NotFound
from core.domain.jobs.stored_files import StoredFile, StoredTree
from core.services.access.disk_reserve import require_disk
from core.services.backend import Backend
from core.services.base_models.sharing import SharedModel, find_shared
from core.services.chat.runner import ModelNotServed
from core.services.chat.served_models import ServedModel
from core.storage import keys
from core.storage.object_store import ObjectNotFound, ObjectStore
from core.storage.trees import TreeDamaged, fetch_file, read_manifest

ADAPTER_DIR = "adapter"
CONFIG_FILE = "config.json"
WEIGHTS = ".safetensors"
_NEEDED = (WEIGHTS, ".json", ".jinja", ".model")


@dataclass(frozen=True, kw_only=True)
class ModelPart:
    """One folder: on this machine, or in the store."""

    directory: Path | None = None
    tree: StoredTree | None = None
    """Where it is in the store; a part without a directory has one."""
    root: str = ""
    """Path inside the tree, empty or with `/` at its end."""
    files: tuple[StoredFile, ...] = ()
    """Files of the tree that loading needs."""
    shared: SharedModel | None = None
    """The store's copy of a base model, which is fetched once for all."""

    def read_config(self, store: ObjectStore) -> dict[str, Any]:
        """Return `config.json`. Raises TreeDamaged, StoreUnavailable, OSError."""
        try:
            if self.directory is not None:
                content = (self.directory / CONFIG_FILE).read_bytes()
            else:
                assert self.tree is not None
                content = store.get_bytes(self.tree.prefix + self.root + CONFIG_FILE)
            found = json.loads(content)
        except ObjectNotFound:
            raise TreeDamaged(f"{CONFIG_FILE} is missing.") from None
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise TreeDamaged(f"{CONFIG_FILE} is not a JSON object.")
        return found

    def read_weights(self, store: ObjectStore) -> list[WeightSummary]:
        """Return what the headers of the weights say. Raises TreeDamaged, StoreUnavailable, OSError."""
        try:
            if self.directory is not None:
                return [read_weights(path) for path in sorted(self.directory.glob(f"*{WEIGHTS}"))]
            return [
                read_weights_of(file.path, file.num_bytes, partial(_read, store, file.key))
                for file in self.files
                if file.path.endswith(WEIGHTS)
            ]
        except ObjectNotFound:
            raise TreeDamaged("weights are missing.") from None
        except DamagedBaseModel as damage:
            raise TreeDamaged(damage.detail) from None


@dataclass(frozen=True, kw_only=True)
class ModelParts:
    model: ModelPart
    """The policy itself, or what an adapter is applied to."""
    adapter: ModelPart | None = None


def find_parts(backend: Backend, model: ServedModel) -> ModelParts:
    """Find the folders of a model. Raises ModelNotServed, StoreUnavailable."""
    try:
        if model.policy is None:
            return ModelParts(model=_find_base(backend, model))
        adapter = find_adapter(backend.store, model)
        if adapter is None:
            return ModelParts(model=_find_in_store(backend.store, model.policy))
        return ModelParts(model=_find_base(backend, model), adapter=adapter)
    except TreeDamaged as damage:
        raise damaged(model, damage) from None


def find_adapter(store: ObjectStore, model: ServedModel) -> ModelPart | None:
    """Return the adapter that a job trained; None for weights that are whole. Raises TreeDamaged, StoreUnavailable."""
    if model.policy is None or not model.has_lora:
        return None
    part = _find_in_store(store, model.policy, "" if model.is_adapter_root else f"{ADAPTER_DIR}/")
    return part if part.files else None


def fetch_part(backend: Backend, part: ModelPart, target: Path, check: Callable[[], None]) -> Path:
    """Fetch a part from the store into `target`, which must not exist, verified.

    Raises TreeDamaged, DiskReserveReached, StoreUnavailable, OSError, and what `check` raises between files.
    """
    target.mkdir(mode=0o700, parents=True)
    require_disk(backend.settings, sum(file.num_bytes for file in part.files), "the files of this model")
    for file in part.files:
        check()
        fetch_file(backend.store, file, target / file.path.removeprefix(part.root))
    return target


def damaged(model: ServedModel, damage: TreeDamaged) -> ModelNotServed:
    """Return the error that says of a model what is wrong with its stored files."""
    return ModelNotServed(f"Stored files of {model.name} are damaged: {damage}")


def _find_base(backend: Backend, model: ServedModel) -> ModelPart:
    if model.base_tree is not None:
        return _find_in_store(backend.store, model.base_tree)
    name = str(model.base_name)
    try:
        return ModelPart(directory=get_base_model(backend.settings.models_dir, name).directory.resolve())
    except NotFound as error:
        shared = find_shared(backend.store, name)
        if shared is None:
            raise ModelNotServed(error.detail) from None
    except DomainError as error:
        raise ModelNotServed(error.detail) from None
    prefix = keys.base_model_prefix(name, shared.digest)
    tree = StoredTree(prefix=prefix, manifest_sha256=shared.manifest_sha256)
    found = _find_in_store(backend.store, tree)
    return ModelPart(tree=tree, files=found.files, shared=shared)


def _find_in_store(store: ObjectStore, tree: StoredTree, root: str = "") -> ModelPart:
    found = read_manifest(store, tree)
    own = [file for file in found if file.path.startswith(root) and "/" not in file.path.removeprefix(root)]
    needed = tuple(file for file in own if file.path.endswith(_NEEDED))
    return ModelPart(tree=tree, root=root, files=needed)


def _read(store: ObjectStore, key: str, start: int, end: int) -> bytes:
    return b"".join(store.read(key, start, end))
