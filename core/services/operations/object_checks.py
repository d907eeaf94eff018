"""Looks for objects that rows name and the store has lost: slowly by itself, or all at once when asked.

The slow check looks at one thing a minute (a dataset, a checkpoint, an artifact, a stage output), whichever process is
first, and goes on where any of them stopped. It compares presence and sizes; `check_all` reads every byte too.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

import structlog
from sqlalchemy.orm import Session

from core.database.repositories import object_checks as rows
from core.database.repositories.object_checks import NamedObject, Thing
from core.domain.jobs.stored_files import StoredFile
from core.services.backend import Backend
from core.services.jobs.stored_files import tell_of_damage
from core.services.transactions import reads
from core.storage import keys
from core.storage.object_store import ObjectNotFound
from core.storage.trees import MANIFEST, MAX_READS, TreeDamaged, read_manifest

SECONDS_BETWEEN = 60.0
"""Pause between two things that the slow check looks at."""
MISSING, DAMAGED = "missing", "damaged"

_log = structlog.get_logger(__name__)


@dataclass
class Look:
    """What was looked at for one thing, and what of it is lost."""

    keys: list[str] = field(default_factory=list)
    lost: dict[str, str] = field(default_factory=dict)
    """Key -> `missing` or `damaged`."""

    def add(self, key: str, what: str | None) -> None:
        self.keys.append(key)
        if what is not None:
            self.lost[key] = what


@dataclass(frozen=True, kw_only=True)
class Loss:
    """One lost object, for an operator."""

    key: str
    what: str
    owner_id: str
    """The job's, or the dataset's."""


def step(backend: Backend, seconds: float = SECONDS_BETWEEN) -> bool:
    """Look at the next thing if it is due; return whether something was looked at. Raises Unavailable."""
    cursor = backend.database.write(lambda session: rows.take_turn(session, seconds))
    if cursor is None:
        return False
    thing = _next_thing(backend, cursor)
    if thing is None:
        backend.database.write(rows.end_pass)
        return False
    _look_and_record(backend, thing, is_deep=False)
    backend.database.write(lambda session: rows.advance(session, thing.cursor))
    return True


def check_all(backend: Backend, *, is_deep: bool = True) -> Iterator[tuple[int, list[Loss]]]:
    """Look at everything at once: yield the number of objects of each thing, and what of it is lost.

    `is_deep`: every object is read whole and compared with its SHA-256. Raises Unavailable.
    """
    cursor = ""
    while (thing := _next_thing(backend, cursor)) is not None:
        cursor = thing.cursor
        look = _look_and_record(backend, thing, is_deep=is_deep)
        yield (
            len(look.keys),
            [Loss(key=key, what=what, owner_id=thing.owner_id) for key, what in sorted(look.lost.items())],
        )


@reads
def _next_thing(session: Session, cursor: str) -> Thing | None:
    return rows.next_thing(session, cursor)


def _look_and_record(backend: Backend, thing: Thing, *, is_deep: bool) -> Look:
    look = _look(backend, thing, is_deep=is_deep)
    if look.lost and not backend.database.read(lambda session: rows.is_there(session, thing)):
        return Look()  # deleted meanwhile
    backend.database.write(lambda session: rows.record(session, thing, look.keys, look.lost))
    for key, what in look.lost.items():
        _tell(backend, thing, key, what)
    return look


def _look(backend: Backend, thing: Thing, *, is_deep: bool) -> Look:
    look = Look()
    objects = objects_of(thing)
    for tree in thing.trees:
        try:
            files = read_manifest(backend.store, tree)
        except TreeDamaged:
            look.add(tree.prefix + MANIFEST, _fault(backend, NamedObject(key=tree.prefix + MANIFEST)) or DAMAGED)
            continue
        look.add(tree.prefix + MANIFEST, None)
        objects += [NamedObject(key=file.key, num_bytes=file.num_bytes, sha256=file.sha256) for file in files]
    for one in objects:
        look.add(one.key, _fault(backend, one) or (_fault_of_bytes(backend, one) if is_deep else None))
    return look


def objects_of(thing: Thing) -> list[NamedObject]:
    """Return the objects that are named one by one, with their whole keys."""
    if thing.is_job:
        return list(thing.objects)
    prefix = keys.dataset_prefix(thing.project_id, thing.owner_id)
    return [replace(one, key=prefix + one.key) for one in thing.objects]


def _fault(backend: Backend, one: NamedObject) -> str | None:
    try:
        found = backend.store.stat(one.key)
    except ObjectNotFound:
        return MISSING
    return DAMAGED if one.num_bytes is not None and found.num_bytes != one.num_bytes else None


def _fault_of_bytes(backend: Backend, one: NamedObject) -> str | None:
    """A read that comes changed is made again: the way may be at fault, not the object."""
    if one.sha256 is None:
        return None
    for _ in range(MAX_READS):
        digest = hashlib.sha256()
        try:
            for chunk in backend.store.read(one.key):
                digest.update(chunk)
        except ObjectNotFound:
            return MISSING
        if digest.hexdigest() == one.sha256:
            return None
    return DAMAGED


def _tell(backend: Backend, thing: Thing, key: str, what: str) -> None:
    _log.error("object_lost", key=key, what=what, owner=thing.owner_id)
    if thing.is_job:
        # In the event the file is named below the attempt, as `artifact/config.json`.
        path = str(PurePosixPath(*PurePosixPath(key).parts[5:]))
        sha256 = next((one.sha256 for one in thing.objects if one.key == key), None)
        file = StoredFile(path=path, num_bytes=0, sha256=sha256 or "", key=key)
        tell_of_damage(backend, thing.owner_id, file, f"is {what} in the object store.", actor="sweeper")
