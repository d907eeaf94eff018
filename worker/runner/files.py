"""Files of a model on this machine: base models from the models directory or the store, policies from the store."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from core.services.backend import Backend
from core.services.base_models.sharing import fetch_shared
from core.services.chat.model_parts import WEIGHTS, ModelPart, ModelParts, damaged, fetch_part
from core.services.chat.served_models import ServedModel
from core.storage.trees import TreeDamaged


@dataclass(frozen=True, kw_only=True)
class ModelFiles:
    model_dir: Path
    adapter_dir: Path | None
    reads: tuple[Path, ...]
    """Folders outside the work directory."""

    @property
    def signature(self) -> tuple[tuple[str, int, int], ...]:
        """Names, sizes and times of the weights: those of a base model that was replaced differ."""
        found = [(path.name, path.stat()) for path in sorted(self.model_dir.glob(f"*{WEIGHTS}"))]
        return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in found)


def fetch_model(
    backend: Backend, model: ServedModel, parts: ModelParts, work_dir: Path, check: Callable[[], None]
) -> ModelFiles:
    """Fetch what is missing into the work directory, verified.

    Raises ModelNotServed, DiskReserveReached, Unavailable, OSError.
    """
    try:
        folder = _fetch(backend, parts.model, work_dir / "model", check)
        reads = () if folder.is_relative_to(work_dir) else (folder,)
        if parts.adapter is None:
            return ModelFiles(model_dir=folder, adapter_dir=None, reads=reads)
        adapter = _fetch(backend, parts.adapter, work_dir / "adapter", check)
        return ModelFiles(model_dir=folder, adapter_dir=adapter, reads=reads)
    except TreeDamaged as damage:
        raise damaged(model, damage) from None


def _fetch(backend: Backend, part: ModelPart, target: Path, check: Callable[[], None]) -> Path:
    if part.directory is not None:
        return part.directory
    if part.shared is not None:
        return fetch_shared(backend, part.shared, check=check)
    return fetch_part(backend, part, target, check)
