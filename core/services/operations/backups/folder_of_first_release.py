"""Copy of an object store as version 0.1.0 wrote it, beside a dump of the database; it can still be restored.

<folder>/objects/<key>      as in a store that is a local directory
<folder>/SHA256SUMS         written last; `sha256sum -c SHA256SUMS` checks the folder
"""

from collections.abc import Iterator
from pathlib import Path

from core.storage import keys
from core.storage.object_store import ObjectInfo, ObjectStore
from core.storage.trees import SUMS_FILE, file_sha256

OBJECTS = "objects"


class CopyRefused(Exception):
    """Raised before anything is written; the text is for the operator."""


def load(store: ObjectStore, folder: Path) -> int:
    """Restore objects into an empty store; all are checked before the first. Raises CopyRefused, Unavailable."""
    try:
        lines = (folder / SUMS_FILE).read_text(encoding="utf-8").splitlines()
    except OSError:
        raise CopyRefused(f"{folder} is no whole copy: {SUMS_FILE} cannot be read") from None
    sums = {path.removeprefix(f"{OBJECTS}/"): digest for digest, _, path in (line.partition("  ") for line in lines)}
    if next(_all(store), None) is not None:
        raise CopyRefused("the store holds objects already; load into an empty one")
    source = folder / OBJECTS
    for key, digest in sums.items():
        if not (source / key).is_file() or file_sha256(source / key) != digest:
            raise CopyRefused(f"{OBJECTS}/{key} is missing or damaged")
    for key in sums:
        store.put_file(key, source / key)
    return len(sums)


def _all(store: ObjectStore) -> Iterator[ObjectInfo]:
    for root in (keys.ROOT, keys.MODELS_ROOT):
        yield from store.list(root)
