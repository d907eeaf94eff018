"""The object store as the rest of the project sees it: immutable objects under keys with `/` between their parts.

Keys come from `core.storage.keys` only. A missing key is always `ObjectNotFound`; whatever else a store cannot do is
`StoreUnavailable`. Correctness never rests on conditional writes: keys carry the attempt, the database row decides.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from core.domain.errors import NotFound, Unavailable


class ObjectNotFound(NotFound):
    code = "object-not-found"
    title = "The stored object is missing"


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
        """Store the file whole or not at all; replaces an object of that key.

        `is_final`: nobody writes to `source` any more, so a store on its file system may share its bytes instead of
        copying them. Deleting it stays allowed.
        """

    def put_bytes(self, key: str, data: bytes) -> None:
        """Store a small object whole or not at all."""

    def get_file(self, key: str, target: Path) -> None:
        """Fetch into `target`, which exists afterwards whole or not at all. Raises ObjectNotFound."""

    def get_bytes(self, key: str) -> bytes:
        """Raises ObjectNotFound."""

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Chunks of the bytes [start, end). Raises ObjectNotFound before the first chunk."""

    def stat(self, key: str) -> ObjectInfo:
        """Raises ObjectNotFound."""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects whose key starts with `prefix` (which ends in `/`); those of one folder come together."""

    def delete(self, key: str) -> None:
        """Idempotent."""

    def download_url(self, key: str, *, filename: str, seconds: int) -> str | None:
        """A presigned URL that downloads as `filename`, or None where the store has no such thing."""

    def remove_leftovers(self, older_than_seconds: float) -> None:
        """Let go of what interrupted writes have left; no object of a key is among it."""

    def check(self) -> None:
        """Raises StoreUnavailable when objects cannot be written and read."""
