"""Files and folders in the object store, with the sums by which they are verified."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    path: str
    """Inside its folder, with `/`."""
    num_bytes: int
    sha256: str
    key: str
    """In the object store; not for users."""


@dataclass(frozen=True, kw_only=True)
class StoredTree:
    """A folder of objects, described by its `manifest.json`."""

    prefix: str
    """Prefix of the objects' keys, with its `/`."""
    manifest_sha256: str
