"""The models directory: every base model is a folder in it, named as the model."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from core.base_models.catalogue import CATALOGUE
from core.base_models.errors import BaseModelNotFound
from core.base_models.folder import ModelFacts, inspect, refuse_links
from core.base_models.manifest import (
    FOLDER_SOURCE,
    Manifest,
    describe,
    is_unchanged,
    keep,
    read_manifest,
    verify,
)
from core.base_models.names import check_name
from core.domain.errors import DomainError
from core.wording import did_you_mean


@dataclass(frozen=True, kw_only=True)
class BaseModel(ModelFacts):
    """A usable base model."""

    name: str
    directory: Path
    source: str
    revision: str | None
    pulled_at: str | None


def list_base_models(models_dir: Path) -> list[BaseModel]:
    """Return all usable base models by name; `refused_base_models` returns the others."""
    found = []
    for folder in _folders(models_dir):
        outcome = _try_read(folder)
        if isinstance(outcome, BaseModel):
            found.append(outcome)
    return found


def refused_base_models(models_dir: Path) -> dict[str, DomainError]:
    """Return folders that cannot be used, with the reason for the operator."""
    outcomes = {folder.name: _try_read(folder) for folder in _folders(models_dir)}
    return {name: outcome for name, outcome in outcomes.items() if isinstance(outcome, DomainError)}


def get_base_model(models_dir: Path, name: str) -> BaseModel:
    """Return the base model of that name.

    Raises:
        InvalidModelName: not a name.
        BaseModelNotFound: there is none; the message lists what there is.
        InvalidRequest: there is a folder, but it cannot be used (a subclass says why).
    """
    folder = models_dir / check_name(name)
    if not folder.is_dir():
        raise BaseModelNotFound(_not_found(name, [model.name for model in list_base_models(models_dir)]))
    return _read(folder)


def _not_found(name: str, names: list[str]) -> str:
    """Return what was probably meant, what there is, and how to get the model."""
    there = f"There are: {', '.join(names)}." if names else "There is none yet."
    if name in CATALOGUE:
        how = f"The operator fetches it where the service runs: `preftune models pull {name}`."
    elif meant := did_you_mean(name, names):
        how = f"D{meant[1:].strip()}"
    else:
        how = "The operator fetches models of the hub: `preftune models pull <organisation>/<name>@<commit>`."
    return f"No base model `{name}` here. {there} {how}"


def base_model_digest(model: BaseModel) -> str:
    """Return a digest of all files that determine training, from sums kept with the model.

    Files are read again only when a size or time of change differs from what was written down.

    Raises:
        DamagedBaseModel, IncompleteBaseModel: files of a pulled model are not those that were pulled.
    """
    return _current_manifest(model.directory).digest


_summed: dict[Path, Manifest] = {}
"""Sums that a read-only models directory could not keep, by folder; as many as there are folders."""


def _current_manifest(folder: Path) -> Manifest:
    manifest = read_manifest(folder)
    for known in (manifest, _summed.get(folder)):
        if known and is_unchanged(folder, known) and _is_complete(folder, known):
            return known
    fresh = verify(folder, manifest) if manifest and manifest.source != FOLDER_SOURCE else describe(folder)
    keep(folder, fresh)
    _summed[folder] = fresh
    return fresh


def _is_complete(folder: Path, manifest: Manifest) -> bool:
    """Whether a folder put there by hand still has exactly the files that were summed."""
    return manifest.source != FOLDER_SOURCE or set(inspect(folder).files) == manifest.files.keys()


def _folders(models_dir: Path) -> list[Path]:
    if not models_dir.is_dir():
        return []
    return sorted(path for path in models_dir.iterdir() if path.is_dir() and not path.name.startswith("."))


def _try_read(folder: Path) -> BaseModel | DomainError:
    try:
        check_name(folder.name)
        return _read(folder)
    except DomainError as error:
        return error


def _read(folder: Path) -> BaseModel:
    refuse_links(folder)
    return _read_stamped(folder, _stamp(folder))


def _stamp(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Return a value that changes whenever a file of the folder does."""
    return tuple(
        (str(path.relative_to(folder)), (stat := path.lstat()).st_size, stat.st_mtime_ns)
        for path in sorted(folder.rglob("*"))
    )


@lru_cache(maxsize=256)
def _read_stamped(folder: Path, stamp: tuple[tuple[str, int, int], ...]) -> BaseModel:
    manifest = read_manifest(folder)
    facts = inspect(folder)
    pulled = manifest if manifest and manifest.source != FOLDER_SOURCE else None
    return BaseModel(
        name=folder.name,
        directory=folder,
        source=pulled.source if pulled else FOLDER_SOURCE,
        revision=pulled.revision if pulled else None,
        architecture=facts.architecture,
        num_parameters=facts.num_parameters,
        context_length=facts.context_length,
        has_position_table=facts.has_position_table,
        vocab_size=facts.vocab_size,
        has_chat_template=facts.has_chat_template,
        licence=(pulled.licence if pulled else None) or facts.licence,
        pulled_at=pulled.pulled_at if pulled else None,
    )
