"""Folders of objects: uploaded with their manifest last, fetched only as a whole and only undamaged.

`manifest.json` beside the files holds `{"version": 1, "files": [{"path", "num_bytes", "sha256"}]}`, paths with `/`.
Whoever records a tree keeps the SHA-256 of that manifest, and so of everything in it.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from core.failpoints import reach
from core.storage.object_store import ObjectNotFound, ObjectStore, StoreUnavailable

MANIFEST = "manifest.json"
SUMS_FILE = "SHA256SUMS"
"""For people: `sha256sum -c SHA256SUMS` in a folder they downloaded."""
_VERSION = 1
_CHUNK_BYTES = 4 * 1024 * 1024


class TreeDamaged(Exception):
    """The objects are not what was recorded. The text is for the user."""


@dataclass(frozen=True, kw_only=True)
class TreeFile:
    path: str
    num_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class UploadedTree:
    prefix: str
    manifest_sha256: str
    files: list[TreeFile]

    @property
    def num_bytes(self) -> int:
        return sum(file.num_bytes for file in self.files)


def _nothing() -> None:
    return


def file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as content:
        while chunk := content.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def describe(directory: Path) -> list[TreeFile]:
    """Every regular file below, in the order of their paths. Links are refused: a tree holds only its own bytes."""
    files = []
    for path in sorted(directory.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ValueError(f"neither file nor folder: {path}")
        name = path.relative_to(directory).as_posix()
        if path.is_file() and name != MANIFEST:
            files.append(TreeFile(path=name, num_bytes=path.stat().st_size, sha256=file_sha256(path)))
    return files


def write_sums(directory: Path) -> None:
    """`SHA256SUMS` over every other file below; one of an earlier try is replaced."""
    (directory / SUMS_FILE).unlink(missing_ok=True)
    sums = [f"{file.sha256}  {file.path}\n" for file in describe(directory)]
    (directory / SUMS_FILE).write_text("".join(sums), encoding="utf-8")


def upload_tree(
    store: ObjectStore, prefix: str, directory: Path, *, between_files: Callable[[], None] = _nothing
) -> UploadedTree:
    """Store every file, check its size, and store the manifest last. `between_files` may raise to give up.

    Raises StoreUnavailable; uploading again is safe.
    """
    files = describe(directory)
    for file in files:
        between_files()
        store.put_file(prefix + file.path, directory / file.path)
        if store.stat(prefix + file.path).num_bytes != file.num_bytes:
            raise StoreUnavailable("The object store holds another number of bytes than it was given.")
        reach("upload.file_stored")
    manifest = json.dumps({"version": _VERSION, "files": [asdict(file) for file in files]}, indent=1).encode()
    reach("upload.files_stored")
    store.put_bytes(prefix + MANIFEST, manifest)
    reach("upload.manifest_stored")
    return UploadedTree(prefix=prefix, manifest_sha256=hashlib.sha256(manifest).hexdigest(), files=files)


def check_stored(store: ObjectStore, tree: UploadedTree, *, between_files: Callable[[], None] = _nothing) -> None:
    """Read every file back. Raises StoreUnavailable where the store gives other bytes than it was given."""
    for file in tree.files:
        between_files()
        digest = hashlib.sha256()
        for chunk in store.read(tree.prefix + file.path):
            digest.update(chunk)
        if digest.hexdigest() != file.sha256:
            raise StoreUnavailable(f"The object store gives back other bytes of {file.path} than it was given.")


def read_manifest(store: ObjectStore, prefix: str, manifest_sha256: str) -> list[TreeFile]:
    """What the tree holds. Raises TreeDamaged and StoreUnavailable."""
    try:
        content = store.get_bytes(prefix + MANIFEST)
    except ObjectNotFound:
        raise TreeDamaged("its manifest is missing.") from None
    if hashlib.sha256(content).hexdigest() != manifest_sha256:
        raise TreeDamaged("its manifest has changed.")
    try:
        values = json.loads(content)
        files = [TreeFile(**file) for file in values["files"]]
        is_known = values["version"] == _VERSION and all(_is_inside(file.path) for file in files)
    except (ValueError, TypeError, KeyError):
        is_known = False
    if not is_known:
        raise TreeDamaged("its manifest is of an unknown version.")
    return files


def fetch_tree(
    store: ObjectStore,
    prefix: str,
    manifest_sha256: str,
    target: Path,
    *,
    between_files: Callable[[], None] = _nothing,
) -> list[TreeFile]:
    """Fetch every file into `target`, which must not exist, and verify each. Raises TreeDamaged, StoreUnavailable."""
    files = read_manifest(store, prefix, manifest_sha256)
    target.mkdir(mode=0o700, parents=True)
    for file in files:
        between_files()
        fetch_file(store, prefix + file.path, file, target / file.path)
    return files


def fetch_file(store: ObjectStore, key: str, file: TreeFile, target: Path) -> None:
    """Fetch one object and verify it. Raises TreeDamaged, StoreUnavailable."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        store.get_file(key, target)
    except ObjectNotFound:
        raise TreeDamaged(f"{file.path} is missing.") from None
    if target.stat().st_size != file.num_bytes:
        raise TreeDamaged(f"{file.path} has {target.stat().st_size} bytes instead of {file.num_bytes}.")
    if file_sha256(target) != file.sha256:
        raise TreeDamaged(f"{file.path} has changed.")
    reach("fetch.file_verified")


def _is_inside(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return bool(parts) and not path.startswith("/") and ".." not in parts and "\0" not in path
