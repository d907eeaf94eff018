"""Backup of a deployment while it runs.

The database first, as of one moment; then the objects. An object is stored before a row names it and is never changed,
so whatever the copied rows name is in the store when the objects are copied, as long as the collector waits: it does
(`holding`), and afterwards every object that the copied rows name is looked for in the backup, and compared.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from sqlalchemy.orm import Session

from core.base_models.directory import list_base_models
from core.clock import utc_now
from core.database import snapshots
from core.database.repositories import backups as rows
from core.database.repositories.object_checks import NamedObject, Thing, is_there
from core.services.backend import Backend
from core.services.operations.backups.holding import garbage_held
from core.services.operations.backups.repository import (
    MODELS,
    STORE,
    VERSION,
    BackupError,
    Manifest,
    ObjectList,
    Repository,
    Stored,
    StoredTable,
)
from core.services.operations.object_checks import objects_of
from core.storage import keys
from core.storage.object_store import ObjectInfo, ObjectNotFound, StoreUnavailable
from core.storage.trees import MANIFEST, MAX_READS, TreeDamaged, read_manifest

KEEP = 7
_POINTER = "/" + keys.base_model_pointer("").rpartition("/")[2]


@dataclass(frozen=True, kw_only=True)
class Progress:
    num_objects: int
    num_copied: int
    """Objects that no earlier backup had."""
    num_bytes: int
    """Bytes of those."""


def back_up(
    backend: Backend,
    folder: Path,
    *,
    keep: int = KEEP,
    rereads: bool = False,
    tell: Callable[[Progress], None] = lambda _: None,
    warn: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Add a backup to a folder, and delete all but the newest `keep`.

    With `rereads`, what earlier backups hold is read before it is taken over, and copied again where it is damaged, for
    them too. `warn` is told of such damage, and of kept backups that cannot be read.

    Raises BackupError, Unavailable, and OSError for the folder; earlier backups are as they were then.
    """
    repository = Repository(folder)
    with repository.writing(), garbage_held(backend):
        manifest = _Run(backend, repository, rereads, tell, warn).run()
        for fault in repository.forget_old(keep):
            warn(f"{manifest.id} is whole, but {fault}")
    return manifest


class _Run:
    """One backup, and the copied objects as a source of their bytes."""

    def __init__(
        self,
        backend: Backend,
        repository: Repository,
        rereads: bool,
        tell: Callable[[Progress], None],
        warn: Callable[[str], None],
    ) -> None:
        self._backend = backend
        self._repository = repository
        self._rereads = rereads
        self._tell, self._warn = tell, warn
        self._whole: set[str] = set()
        """Blobs that were read, or written, by this run."""
        self._known = repository.known()
        self._num_copied = self._num_bytes = 0
        self._folder = repository.begin()
        self._objects = ObjectList(self._folder)

    def run(self) -> Manifest:
        created_at = utc_now()
        copy, (things, arriving) = snapshots.take(self._backend.database, self._repository.new_folder(), _look)
        tables = [self._add_table(table) for table in copy.tables]
        for info in self._in_store():
            self._copy(info)
        self._copy_models()
        lost = self._compare(things, arriving)
        found = self._objects.found.values()
        manifest = Manifest(
            id=self._folder.name,
            version=VERSION,
            created_at=created_at.isoformat(),
            release=version("preftune"),
            kind=copy.kind,
            revision=copy.revision,
            tables=tables,
            num_objects=len(found),
            num_bytes=sum(one.num_bytes for one in found),
            objects_sha256=self._objects.close(),
            lost=lost,
        )
        self._repository.finish(self._folder, manifest)
        return manifest

    def get_bytes(self, key: str) -> bytes:
        """Return the bytes of a copied object of the store; raises ObjectNotFound."""
        one = self._objects.found.get((STORE, key))
        if one is None:
            raise ObjectNotFound("The object is not in the backup.")
        if not self._is_whole(one):
            self._copy(self._backend.store.stat(key), is_again=True)
            one = self._objects.found[STORE, key]
        return self._repository.blob(one.sha256).read_bytes()

    def _add_table(self, table: snapshots.TableCopy) -> StoredTable:
        sha256, num_bytes = self._repository.add(table.path)
        return StoredTable(name=table.name, columns=list(table.columns), num_bytes=num_bytes, sha256=sha256)

    def _in_store(self) -> Iterator[ObjectInfo]:
        """Yield all objects; pointers to base models before what they point to, which is written before them."""
        store = self._backend.store
        yield from store.list(keys.ROOT)
        yield from (info for info in list(store.list(keys.MODELS_ROOT)) if info.key.endswith(_POINTER))
        yield from (info for info in store.list(keys.MODELS_ROOT) if not info.key.endswith(_POINTER))

    def _copy(self, info: ObjectInfo, *, is_again: bool = False) -> None:
        """Copy an object unless an earlier backup has it; one that is gone meanwhile is named by no row."""
        modified = info.modified_at.isoformat()
        known = None if is_again or info.key.endswith(_POINTER) else self._known.get((STORE, info.key))
        if known is None or not self._is_same(known, info.num_bytes, modified):
            target = self._repository.new_file()
            try:
                self._fetch(info.key, target)
            except ObjectNotFound:
                return
            known = self._take_in(target, STORE, info.key, modified)
        self._note(known)

    def _fetch(self, key: str, target: Path) -> None:
        for _ in range(MAX_READS - 1):
            try:
                return self._backend.store.get_file(key, target)
            except StoreUnavailable:
                target.unlink(missing_ok=True)
        return self._backend.store.get_file(key, target)

    def _copy_models(self) -> None:
        """Copy the folder of base models; those that others share lie in the store too, and take no room twice."""
        for model in list_base_models(self._backend.settings.models_dir):
            for path in sorted(path for path in model.directory.iterdir() if path.is_file() and not path.is_symlink()):
                key, status = f"{model.name}/{path.name}", path.stat()
                modified = str(status.st_mtime_ns)
                known = self._known.get((MODELS, key))
                if known is None or not self._is_same(known, status.st_size, modified):
                    target = self._repository.new_file()
                    _copy_file(path, target)
                    known = self._take_in(target, MODELS, key, modified)
                self._note(known)

    def _is_same(self, known: Stored, num_bytes: int, modified: str) -> bool:
        is_unchanged = (known.num_bytes, known.modified) == (num_bytes, modified)
        if not is_unchanged or not self._repository.has(known.sha256, num_bytes):
            return False
        return not self._rereads or self._is_whole(known)

    def _is_whole(self, one: Stored) -> bool:
        """Whether a blob's bytes are right; says so if not."""
        if one.sha256 not in self._whole:
            if not self._repository.is_whole(one.sha256):
                self._warn(f"{one.key}: earlier backups hold a damaged copy; copying it again")
                return False
            self._whole.add(one.sha256)
        return True

    def _take_in(self, path: Path, place: str, key: str, modified: str) -> Stored:
        sha256, num_bytes = self._repository.add(path)
        self._whole.add(sha256)
        self._num_copied += 1
        self._num_bytes += num_bytes
        return Stored(place=place, key=key, num_bytes=num_bytes, modified=modified, sha256=sha256)

    def _note(self, one: Stored) -> None:
        self._objects.add(one)
        self._tell(
            Progress(num_objects=len(self._objects.found), num_copied=self._num_copied, num_bytes=self._num_bytes)
        )

    def _compare(self, things: list[Thing], arriving: list[NamedObject]) -> list[str]:
        """Look for all that the copied rows name; return what the store has lost. Raises BackupError."""
        lost = [one.key for one in arriving if not self._has(one)]
        for thing in things:
            faults = [one.key for one in self._named_by(thing) if not self._has(one)]
            if faults and not self._is_still_named(thing):
                raise BackupError(
                    f"{faults[0]} was deleted while the backup was made, by a process of an earlier version of "
                    "preftune. Run the backup again, with all processes of this version."
                )
            lost += faults
        return sorted(lost)

    def _named_by(self, thing: Thing) -> Iterator[NamedObject]:
        yield from objects_of(thing)
        for tree in thing.trees:
            manifest = NamedObject(key=tree.prefix + MANIFEST, sha256=tree.manifest_sha256)
            yield manifest
            if not self._has(manifest):
                continue
            try:
                files = read_manifest(self, tree)
            except TreeDamaged as damage:
                raise BackupError(f"{manifest.key}: {damage}") from None
            for file in files:
                yield NamedObject(key=file.key, num_bytes=file.num_bytes, sha256=file.sha256)

    def _has(self, one: NamedObject) -> bool:
        """Whether the backup holds the object; one that came with other bytes is copied again."""
        if self._is_right(one):
            return True
        for _ in range(MAX_READS - 1):
            try:
                self._copy(self._backend.store.stat(one.key), is_again=True)
            except ObjectNotFound:
                return False
            if self._is_right(one):
                return True
        return False

    def _is_right(self, one: NamedObject) -> bool:
        found = self._objects.found.get((STORE, one.key))
        return found is not None and one.sha256 in (None, found.sha256) and one.num_bytes in (None, found.num_bytes)

    def _is_still_named(self, thing: Thing) -> bool:
        return self._backend.database.read(lambda session: is_there(session, thing))


def _look(session: Session) -> tuple[list[Thing], list[NamedObject]]:
    """Return what the rows name: things, and what is on its way to a dataset."""
    arriving = [
        NamedObject(
            key=keys.upload_part(project_id, part.upload_id, part.number, part.sha256),
            num_bytes=part.num_bytes,
            sha256=part.sha256,
        )
        for project_id, part in rows.list_open_parts(session)
    ]
    for row in rows.list_processing(session):
        key = keys.dataset_original(row.project_id, row.id)
        arriving.append(NamedObject(key=key, num_bytes=row.num_bytes, sha256=row.sha256))
    return rows.list_things(session), arriving


def _copy_file(source: Path, target: Path) -> None:
    with source.open("rb") as content, target.open("xb") as copy:
        while chunk := content.read(1024 * 1024):
            copy.write(chunk)
