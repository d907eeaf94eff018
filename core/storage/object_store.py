"""Interface of the object store: immutable objects under keys with `/` between their parts.

Keys come from `core.storage.keys` only. A missing key is always `ObjectNotFound`; whatever else a store cannot do is
`StoreUnavailable`. Correctness never rests on conditional writes: keys carry the attempt, the database row decides.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

import structlog

from core.domain.errors import NotFound, Unavailable

_log = structlog.get_logger(__name__)


class ObjectNotFound(NotFound):
    code = "object-not-found"
    title = "The stored object is missing"


class ObjectMissing(Unavailable):
    """A row names the object, and the store does not have it: a 404 would say that it never was."""

    code = "object-missing"
    title = "A stored object is gone"


class StoreUnavailable(Unavailable):
    code = "store-unavailable"
    title = "The object store does not answer"


@dataclass(frozen=True, kw_only=True)
class ObjectInfo:
    key: str
    num_bytes: int
    modified_at: datetime
    """UTC."""


class ObjectStore(Protocol):
    def put_file(self, key: str, source: Path, *, is_final: bool = False) -> None:
        """Store the file atomically; replaces an object of that key.

        `is_final`: nobody writes to `source` any more, so a store on its file system may share its bytes instead of
        copying them. Deleting it stays allowed.
        """

    def put_bytes(self, key: str, data: bytes) -> None:
        """Store a small object atomically."""

    def get_file(self, key: str, target: Path) -> None:
        """Fetch into `target`, which exists afterwards whole or not at all. Raises ObjectNotFound."""

    def get_bytes(self, key: str) -> bytes:
        """Return a small object's bytes; raises ObjectNotFound."""

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Yield chunks of the bytes [start, end). Raises ObjectNotFound before the first chunk."""

    def stat(self, key: str) -> ObjectInfo:
        """Return an object's facts; raises ObjectNotFound."""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield all objects whose key starts with `prefix` (which ends in `/`), grouped by folder."""

    def delete(self, key: str) -> None:
        """Delete an object; a missing one is no error."""

    def download_url(self, key: str, *, filename: str, seconds: int) -> str | None:
        """Return a presigned URL that downloads as `filename`, or None where the store has none."""

    def remove_leftovers(self, older_than_seconds: float) -> None:
        """Delete the remains of interrupted writes, never a stored object."""

    def check(self) -> None:
        """Write and read a test object; raises StoreUnavailable when that fails."""

    def takes_any_key(self) -> bool:
        """Return whether the store serves somebody with a wrong key. Raises StoreUnavailable."""

    def ignores_conditions(self) -> bool:
        """Return whether the store overwrites an object although told not to. Raises StoreUnavailable."""


def read_stored(store: ObjectStore, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
    """Yield the bytes [start, end) of an object that a row names. Raises ObjectMissing before the first chunk."""
    try:
        return store.read(key, start, end)
    except ObjectNotFound:
        _log.error("object_missing", key=key)
        raise ObjectMissing("What the service stored is gone from the store; restore it from a backup.") from None
