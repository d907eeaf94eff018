"""Base models for workers on other machines: copied into the object store, found there by name.

The API process copies what lies in its models directory; a worker whose own directory lacks a model fetches that copy.
The pointer is written last and names the digest, so that a reader finds a whole copy or none.
"""

import json
import shutil
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import structlog

from core.base_models.directory import BaseModel, base_model_digest, get_base_model, list_base_models
from core.database.repositories import backups
from core.domain.errors import DomainError
from core.domain.jobs.stored_files import StoredTree
from core.services.backend import Backend
from core.settings import Settings
from core.storage import keys
from core.storage.object_store import ObjectNotFound, ObjectStore
from core.storage.trees import TreeDamaged, fetch_tree, upload_tree

PAUSE_SECONDS = 10.0
_CACHE = "base-models"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class SharedModel:
    """A base model's copy in the store."""

    name: str
    digest: str
    manifest_sha256: str


def is_sharing(settings: Settings) -> bool:
    """Whether models are shared; workers beside a local store have the same models directory."""
    return settings.effective_storage_url.startswith("s3://")


class ModelSharer:
    """Background thread that keeps the store's copies up to date until stopped."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="model sharer", daemon=True)
        self._shared: dict[str, str] = {}
        """Digests known to be in the store, by name."""

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_seconds: float = 5) -> None:
        self._stop.set()
        self._thread.join(timeout_seconds)

    def share_all(self) -> None:
        for model in list_base_models(self._backend.settings.models_dir):
            digest = base_model_digest(model)
            if self._shared.get(model.name) != digest:
                share(self._backend.store, model, digest, check=self._check)
                if not self._backend.database.read(backups.is_garbage_held):
                    delete_others(self._backend.store, model.name, digest)
                    self._shared[model.name] = digest

    def _check(self) -> None:
        if self._stop.is_set():
            raise _Stopped

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.share_all()
            except _Stopped:
                return
            except Exception as error:  # noqa: BLE001 - this thread must outlive whatever one pass meets
                _log.warning("model_not_shared", error=type(error).__name__, detail=str(error)[:200])
            self._stop.wait(PAUSE_SECONDS)


class _Stopped(Exception):
    """Raised when the process ends."""


def share(store: ObjectStore, model: BaseModel, digest: str, *, check: Callable[[], None]) -> None:
    """Copy the model unless the store has this digest. Raises StoreUnavailable."""
    known = find_shared(store, model.name)
    if known is not None and known.digest == digest:
        return
    tree = upload_tree(store, keys.base_model_prefix(model.name, digest), model.directory, between_files=check)
    pointer = SharedModel(name=model.name, digest=digest, manifest_sha256=tree.manifest_sha256)
    store.put_bytes(keys.base_model_pointer(model.name), json.dumps(asdict(pointer)).encode())
    _log.info("model_shared", model=model.name, digest=digest, num_bytes=tree.num_bytes)


def delete_others(store: ObjectStore, name: str, digest: str) -> None:
    """Delete copies of other digests. Raises StoreUnavailable."""
    kept = (keys.base_model_pointer(name), keys.base_model_prefix(name, digest))
    for info in list(store.list(keys.base_model_folder(name))):
        if not info.key.startswith(kept):
            store.delete(info.key)


def find_shared(store: ObjectStore, name: str) -> SharedModel | None:
    """Return the store's copy of a model; raises StoreUnavailable."""
    try:
        values = json.loads(store.get_bytes(keys.base_model_pointer(name)))
        return SharedModel(**values)
    except ObjectNotFound:
        return None
    except (ValueError, TypeError):
        _log.error("model_pointer_damaged", model=name)
        return None


def fetch_shared(backend: Backend, model: SharedModel, *, check: Callable[[], None]) -> Path:
    """Return the verified copy in the data directory, fetched once for all workers of that directory.

    Raises TreeDamaged, StoreUnavailable, and what `check` raises.
    """
    parent = backend.settings.data_dir / _CACHE / model.digest
    if not (parent / model.name).is_dir():
        temporary = parent / f".{uuid.uuid4().hex}" / model.name
        try:
            prefix = keys.base_model_prefix(model.name, model.digest)
            tree = StoredTree(prefix=prefix, manifest_sha256=model.manifest_sha256)
            fetch_tree(backend.store, tree, temporary, between_files=check)
            with suppress(OSError):  # another worker of this directory was faster
                temporary.rename(parent / model.name)
        finally:
            shutil.rmtree(temporary.parent, ignore_errors=True)
    _verify(parent, model)
    return (parent / model.name).resolve()


def _verify(parent: Path, model: SharedModel) -> None:
    try:
        digest = base_model_digest(get_base_model(parent, model.name))
    except DomainError as error:
        raise TreeDamaged(error.detail) from None
    if digest != model.digest:
        raise TreeDamaged(f"the copy of `{model.name}` has another digest.")
