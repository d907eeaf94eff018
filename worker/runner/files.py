"""Files of a model on this machine: base models from the models directory or the store, policies from the store."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from core.base_models.directory import get_base_model
from core.domain.errors import DomainError, NotFound
from core.domain.jobs.stored_files import StoredFile
from core.services.access.disk_reserve import require_disk
from core.services.backend import Backend
from core.services.base_models.sharing import fetch_shared, find_shared
from core.services.chat.runner import ModelNotServed
from core.services.chat.served_models import ServedModel
from core.storage.trees import TreeDamaged, fetch_file, read_manifest

ADAPTER_DIR = "adapter"
_NEEDED = (".safetensors", ".json", ".jinja", ".model")
_WEIGHTS = ".safetensors"


@dataclass(frozen=True, kw_only=True)
class ModelFiles:
    model_dir: Path
    adapter_dir: Path | None
    reads: tuple[Path, ...]
    """Folders outside the work directory."""

    @property
    def signature(self) -> tuple[tuple[str, int, int], ...]:
        """Names, sizes and times of the weights: those of a base model that was replaced differ."""
        found = [(path.name, path.stat()) for path in sorted(self.model_dir.glob(f"*{_WEIGHTS}"))]
        return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in found)


def fetch_model(backend: Backend, model: ServedModel, work_dir: Path, check: Callable[[], None]) -> ModelFiles:
    """Fetch what is missing into the work directory, verified.

    Raises ModelNotServed, DiskReserveReached, Unavailable, OSError.
    """
    try:
        if model.policy is None:
            return _base(backend, model, work_dir, check)
        files = read_manifest(backend.store, model.policy)
        root = "" if model.is_adapter_root else f"{ADAPTER_DIR}/"
        adapter = [file for file in files if file.path.startswith(root) and "/" not in file.path.removeprefix(root)]
        if not model.has_lora or not adapter:
            own = [file for file in files if "/" not in file.path]
            return _own(_fetch(backend, own, work_dir / "policy", check))
        base = _base(backend, model, work_dir, check)
        folder = _fetch(backend, adapter, work_dir / "policy", check)
        adapter_dir = folder if model.is_adapter_root else folder / ADAPTER_DIR
        return ModelFiles(model_dir=base.model_dir, adapter_dir=adapter_dir, reads=base.reads)
    except TreeDamaged as damage:
        raise ModelNotServed(f"Stored files of {model.name} are damaged: {damage}") from None


def _base(backend: Backend, model: ServedModel, work_dir: Path, check: Callable[[], None]) -> ModelFiles:
    if model.base_tree is not None:
        files = read_manifest(backend.store, model.base_tree)
        own = [file for file in files if "/" not in file.path]
        return _own(_fetch(backend, own, work_dir / "base", check))
    name = str(model.base_name)
    try:
        folder = get_base_model(backend.settings.models_dir, name).directory.resolve()
    except NotFound as error:
        shared = find_shared(backend.store, name)
        if shared is None:
            raise ModelNotServed(error.detail) from None
        folder = fetch_shared(backend, shared, check=check)
    except DomainError as error:
        raise ModelNotServed(error.detail) from None
    return ModelFiles(model_dir=folder, adapter_dir=None, reads=(folder,))


def _own(folder: Path) -> ModelFiles:
    return ModelFiles(model_dir=folder, adapter_dir=None, reads=())


def _fetch(backend: Backend, files: list[StoredFile], target: Path, check: Callable[[], None]) -> Path:
    target.mkdir(mode=0o700, parents=True)
    needed = [file for file in files if file.path.endswith(_NEEDED)]
    require_disk(backend.settings, sum(file.num_bytes for file in needed), "the files of this model")
    for file in needed:
        check()
        fetch_file(backend.store, file, target / file.path)
    return target
