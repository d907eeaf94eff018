"""`preftune.json` in a base model's folder: its source, and the sums of its files.

The digest of a base model is a hash over the sums of all files that determine training. It is computed once and kept
here with sizes and times of change, so that asking for it again costs one `stat` a file.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from core.base_models.errors import DamagedBaseModel, IncompleteBaseModel
from core.base_models.folder import FolderFacts, inspect, read_json
from core.durable_files import replace_text

MANIFEST_FILE = "preftune.json"
VERSION = 1
FOLDER_SOURCE = "folder"
"""The source of a model that was put there by hand."""

_CHUNK_BYTES = 4 * 1024**2


@dataclass(frozen=True, kw_only=True)
class FileSum:
    num_bytes: int
    modified_ns: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    name: str
    source: str
    """`hub:<org>/<name>`, `pypi:<project>==<version>` or `folder`."""
    revision: str | None
    architecture: str
    num_parameters: int
    context_length: int | None
    vocab_size: int | None
    has_chat_template: bool
    licence: str | None
    pulled_at: str | None
    """RFC 3339, UTC; None for a folder put there by hand."""
    files: dict[str, FileSum]

    @property
    def digest(self) -> str:
        sums = [[name, self.files[name].sha256] for name in sorted(self.files)]
        return hashlib.sha256(json.dumps(sums, separators=(",", ":")).encode()).hexdigest()

    @property
    def num_bytes(self) -> int:
        return sum(file.num_bytes for file in self.files.values())


def describe(folder: Path, *, source: str = FOLDER_SOURCE, revision: str | None = None) -> Manifest:
    """Inspect a folder and sum its files. Raises what `inspect` raises."""
    facts = inspect(folder)
    return _build(folder, facts, source, revision)


def _build(folder: Path, facts: FolderFacts, source: str, revision: str | None) -> Manifest:
    return Manifest(
        name=folder.name,
        source=source,
        revision=revision,
        architecture=facts.architecture,
        num_parameters=facts.num_parameters,
        context_length=facts.context_length,
        vocab_size=facts.vocab_size,
        has_chat_template=facts.has_chat_template,
        licence=facts.licence,
        pulled_at=None,
        files={name: sum_file(folder / name) for name in facts.files},
    )


def read_manifest(folder: Path) -> Manifest | None:
    """Return the manifest as written, unverified; None without one. Raises DamagedBaseModel."""
    path = folder / MANIFEST_FILE
    if not path.is_file():
        return None
    values = read_json(path)
    if values.pop("version", None) != VERSION:
        raise DamagedBaseModel(f"{MANIFEST_FILE} of `{folder.name}` is of another version; remove that one file.")
    try:
        files = {name: FileSum(**file) for name, file in values.pop("files").items()}
        return Manifest(**{key: value for key, value in values.items() if key != "digest"}, files=files)
    except (KeyError, TypeError, AttributeError):
        raise DamagedBaseModel(f"{MANIFEST_FILE} of `{folder.name}` is incomplete; remove that one file.") from None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace the manifest atomically."""
    text = json.dumps({"version": VERSION} | asdict(manifest) | {"digest": manifest.digest}, indent=2)
    replace_text(folder / MANIFEST_FILE, text + "\n")


def is_unchanged(folder: Path, manifest: Manifest) -> bool:
    """Whether every file still has the recorded size and modification time."""
    try:
        stats = {name: (folder / name).stat() for name in manifest.files}
    except OSError:
        return False
    return all(
        (stats[name].st_size, stats[name].st_mtime_ns) == (file.num_bytes, file.modified_ns)
        for name, file in manifest.files.items()
    )


def verify(folder: Path, manifest: Manifest) -> Manifest:
    """Return the manifest with current modification times, after reading every file.

    Raises:
        IncompleteBaseModel, DamagedBaseModel: a file is missing or differs from what was pulled.
    """
    files = {}
    for name, expected in manifest.files.items():
        if not (folder / name).is_file():
            raise IncompleteBaseModel(f"`{folder.name}` lacks {name}. Remove the folder and pull the model again.")
        files[name] = sum_file(folder / name)
        if files[name].sha256 != expected.sha256:
            raise DamagedBaseModel(
                f"{name} of `{folder.name}` is not the file that was pulled. Remove the folder and pull the model "
                "again; to use changed weights, give their folder a name of its own, without preftune.json."
            )
    return replace(manifest, files=files)


def sum_file(path: Path, on_bytes: Callable[[int], None] | None = None) -> FileSum:
    stat = path.stat()
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            if on_bytes:
                on_bytes(len(chunk))
    return FileSum(num_bytes=stat.st_size, modified_ns=stat.st_mtime_ns, sha256=digest.hexdigest())


def keep(folder: Path, manifest: Manifest) -> None:
    """Write the manifest where possible: a read-only models directory only costs summing again."""
    with contextlib.suppress(OSError):
        write_manifest(folder, manifest)
