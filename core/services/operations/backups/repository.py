"""Folder of backups: contents under their SHA-256, shared by all backups, and a folder for each backup.

    blobs/<2 digits>/<sha256>          never changed
    backups/<id>/objects.jsonl         a line for each object: where it lies, its key, size, time and SHA-256
    backups/<id>/manifest.json         written last: without it there is no such backup
    tmp/                               what is being written

A blob of a backup that broke off is used by the next one, or removed by it.
"""

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from core.clock import utc_now
from core.durable_files import flush, new_private_file
from core.failpoints import reach
from core.file_locks import try_to_lock
from core.storage.trees import file_sha256

VERSION = 1
MANIFEST, OBJECTS = "manifest.json", "objects.jsonl"
STORE, MODELS = "store", "models"
"""Where an object lies: in the object store, or in the folder of base models."""


class BackupError(Exception):
    """Raised for a folder, a backup or a target that cannot be used; the text is for the operator."""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """An object of a backup."""

    place: str
    key: str
    num_bytes: int
    modified: str
    """Time of change in the source, as the source tells it."""
    sha256: str


@dataclass(frozen=True, kw_only=True)
class StoredTable:
    """The rows of a table, or a whole SQLite file."""

    name: str
    columns: list[str]
    num_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    id: str
    version: int
    created_at: str
    release: str
    """Version of preftune that made the backup."""
    kind: str
    """`sqlite` or `postgresql`."""
    revision: str
    tables: list[StoredTable]
    num_objects: int
    num_bytes: int
    """Bytes of all objects."""
    objects_sha256: str
    """SHA-256 of `objects.jsonl`."""
    lost: list[str]
    """Keys that the database names and the store had lost, or damaged, before."""


class Repository:
    """A folder of backups, used by one process at a time."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._blobs, self._backups, self._tmp = root / "blobs", root / "backups", root / "tmp"

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Make the folder, and lock it. Raises BackupError for one that another process writes to, or of others."""
        is_ours = self._backups.is_dir() or not self.root.exists() or not any(self.root.iterdir())
        if not is_ours:
            raise BackupError(f"{self.root} holds other files; name an empty folder, or one of earlier backups")
        for folder in (self.root, self._blobs, self._backups, self._tmp):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not try_to_lock(descriptor):
                raise BackupError(f"another backup is being written to {self.root}; wait for its end")
            shutil.rmtree(self._tmp)
            self._tmp.mkdir(mode=0o700)
            yield
        finally:
            os.close(descriptor)

    def new_file(self) -> Path:
        """Return a path for something unfinished."""
        return self._tmp / uuid.uuid4().hex

    def new_folder(self) -> Path:
        folder = self.new_file()
        folder.mkdir(mode=0o700)
        return folder

    def blob(self, sha256: str) -> Path:
        return self._blobs / sha256[:2] / sha256

    def has(self, sha256: str, num_bytes: int) -> bool:
        with suppress(OSError):
            return self.blob(sha256).stat().st_size == num_bytes
        return False

    def is_whole(self, sha256: str) -> bool:
        """Read a blob; return whether its bytes are those that were written."""
        with suppress(OSError):
            return file_sha256(self.blob(sha256)) == sha256
        return False

    def add(self, path: Path) -> tuple[str, int]:
        """Take in a finished file by moving it; return SHA-256 and size of what is on the disk then."""
        path.chmod(0o600)
        flush(path)
        _forget_cached(path)
        sha256, num_bytes = file_sha256(path), path.stat().st_size
        target = self.blob(sha256)
        target.parent.mkdir(mode=0o700, exist_ok=True)
        path.replace(target)
        flush(target.parent)
        reach("backup.blob_stored")
        return sha256, num_bytes

    def begin(self) -> Path:
        """Make the folder of a new backup; its name is the time."""
        name = utc_now().strftime("%Y-%m-%dT%H%M%S.%fZ")
        folder = self._backups / name
        folder.mkdir(mode=0o700)
        return folder

    def finish(self, folder: Path, manifest: Manifest) -> None:
        """Write the manifest: from now on the backup exists."""
        with new_private_file(self._tmp / MANIFEST) as file:
            file.write(json.dumps(asdict(manifest), indent=1).encode())
        reach("backup.manifest_written")
        flush(self._blobs)
        flush(folder)
        (self._tmp / MANIFEST).rename(folder / MANIFEST)
        flush(folder)
        flush(self._backups)

    def names(self) -> list[str]:
        """Return the ids of whole backups, oldest first."""
        return sorted(path.parent.name for path in self._backups.glob(f"*/{MANIFEST}"))

    def read(self, name: str) -> Manifest:
        """Return a backup's manifest. Raises BackupError."""
        try:
            values: dict[str, Any] = json.loads((self._backups / name / MANIFEST).read_text(encoding="utf-8"))
            if values["version"] != VERSION:
                raise BackupError(f"backup {name} is of a newer version of preftune; restore it with that version")
            tables = [StoredTable(**table) for table in values.pop("tables")]
            return Manifest(**values, tables=tables)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BackupError(f"backup {name} cannot be read ({type(error).__name__})") from None

    def objects(self, manifest: Manifest) -> Iterator[Stored]:
        """Yield the objects of a backup. Raises BackupError when the list is not the one that was written."""
        path = self._backups / manifest.id / OBJECTS
        with suppress(OSError):
            if file_sha256(path) == manifest.objects_sha256:
                return _read_lines(path)
        raise BackupError(f"backup {manifest.id}: {OBJECTS} is missing or damaged")

    def known(self) -> dict[tuple[str, str], Stored]:
        """Return what earlier backups hold, also those that broke off: the newest of each key."""
        found: dict[tuple[str, str], Stored] = {}
        for path in sorted(self._backups.glob(f"*/{OBJECTS}")):
            with suppress(OSError):  # what cannot be read is copied again
                found |= {(one.place, one.key): one for one in _read_lines(path)}
        return found

    def forget_old(self, keep: int) -> list[str]:
        """Delete all but the newest whole backups, what broke off, and blobs that no backup names.

        Returns why a kept backup cannot be read; no blob is deleted then, as it may name any.
        """
        gone = self.names()[:-keep]
        kept = set(self.names()) - set(gone)
        for folder in self._backups.iterdir():
            if folder.name not in kept:
                (folder / MANIFEST).unlink(missing_ok=True)  # first: what follows may break off
                shutil.rmtree(folder)
        named, faults = set(), []
        for name in sorted(kept):
            try:
                manifest = self.read(name)
                named |= {table.sha256 for table in manifest.tables} | {one.sha256 for one in self.objects(manifest)}
            except BackupError as error:
                faults.append(f"{error}; until {self._backups / name} is deleted, no contents of old backups are")
        for path in self._blobs.glob("*/*"):
            if not faults and path.name not in named:
                path.unlink()
        return faults


class ObjectList:
    """The list of a backup's objects, written as they come, so that a backup that breaks off leaves what it did."""

    def __init__(self, folder: Path) -> None:
        self.found: dict[tuple[str, str], Stored] = {}
        self._path = folder / OBJECTS
        self._file = self._path.open("w", encoding="utf-8")

    def add(self, one: Stored) -> None:
        """Add an object, or replace it."""
        self.found[one.place, one.key] = one
        self._file.write(json.dumps(asdict(one)) + "\n")
        self._file.flush()

    def close(self) -> str:
        """Write the list once more, each object once; return its SHA-256."""
        self._file.close()
        final = self._path.with_suffix(".new")
        with new_private_file(final) as file:
            for one in self.found.values():
                file.write(json.dumps(asdict(one)).encode() + b"\n")
        final.rename(self._path)
        return file_sha256(self._path)


def verify(repository: Repository, manifest: Manifest, tell: Callable[[int], None] = lambda _: None) -> list[str]:
    """Read every byte of a backup; return what is missing or damaged. `tell` is given the bytes read."""
    wanted = {table.sha256: (table.num_bytes, table.name) for table in manifest.tables}
    wanted |= {one.sha256: (one.num_bytes, one.key) for one in repository.objects(manifest)}
    faults = []
    for sha256, (num_bytes, name) in wanted.items():
        if not repository.has(sha256, num_bytes):
            faults.append(f"{name}: blob {sha256} is missing or has another size")
        elif not repository.is_whole(sha256):
            faults.append(f"{name}: blob {sha256} is damaged")
        tell(num_bytes)
    return faults


def _read_lines(path: Path) -> Iterator[Stored]:
    """Yield the lines of a list; the last one of a backup that broke off may be torn, and any one damaged."""
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            with suppress(ValueError, TypeError):
                yield Stored(**json.loads(line))


def _forget_cached(path: Path) -> None:
    """Make the next read come from the disk, where the system has a way to ask for that."""
    if hasattr(os, "posix_fadvise"):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
