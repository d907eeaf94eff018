"""Content of a dataset: the file as uploaded, and its rows as a Parquet file or a folder that `datasets` loads."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from core.database.tables.datasets import Dataset, DatasetStatus
from core.domain.errors import Conflict
from core.services.backend import Backend
from core.services.datasets.datasets import DatasetNotReady, find_ready, resolve
from core.services.views import Content
from core.storage import keys
from core.storage.object_store import ObjectStore, read_stored


class DatasetMixed(Conflict):
    code = "dataset-mixed"
    title = "The rows are of two kinds"


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The rows of a dataset, opened for an export."""

    store: ObjectStore
    key: str
    types: Any
    """`core.datasets.exports.columns.RowTypes`."""
    fingerprint: str
    created_at: datetime

    def lines(self) -> Iterator[bytes]:
        """Yield each row as it is stored, with its line feed. Raises StoreUnavailable."""
        return row_lines(self.store, self.key)


def original(backend: Backend, project_id: str, dataset_id: str) -> Content:
    """Return the bytes as uploaded. Raises ObjectMissing before the first chunk when they are gone."""
    dataset = resolve(backend, project_id, dataset_id)
    if dataset.status is DatasetStatus.REJECTED:
        raise DatasetNotReady(f"{dataset_id} was rejected; its bytes were not kept.")
    return Content(
        num_bytes=dataset.num_bytes,
        sha256=dataset.sha256,
        filename=dataset.filename,
        chunks=read_stored(backend.store, keys.dataset_original(project_id, dataset.id)),
    )


def open_rows(backend: Backend, project_id: str, dataset_id: str) -> Rows:
    """Look at all rows once for their types. Raises DatasetNotFound, DatasetNotReady, DatasetMixed."""
    from core.datasets.exports.columns import MixedRows, find_types  # noqa: PLC0415 - see LOCAL_IMPORTS

    dataset = find_ready(backend, project_id, dataset_id)
    key = keys.dataset_rows(project_id, dataset.id)
    try:
        types = find_types(row_lines(backend.store, key))
    except MixedRows:
        raise DatasetMixed(
            "Some rows are plain texts and others are messages, which a column of one type cannot hold. Take the "
            "original file, or GET /datasets/{id}/rows."
        ) from None
    return Rows(
        store=backend.store, key=key, types=types, fingerprint=_fingerprint(dataset), created_at=dataset.created_at
    )


def parquet(rows: Rows) -> Iterator[bytes]:
    from core.datasets.exports.files import parquet_chunks  # noqa: PLC0415 - see LOCAL_IMPORTS

    return parquet_chunks(rows.lines(), rows.types)


def folder(rows: Rows) -> Iterator[tuple[str, bytes]]:
    """Yield path and content of each file."""
    from core.datasets.exports.files import folder_files  # noqa: PLC0415 - see LOCAL_IMPORTS

    for file in folder_files(rows.lines(), rows.types, rows.fingerprint):
        yield file.path, file.content


def row_lines(store: ObjectStore, key: str) -> Iterator[bytes]:
    """Yield the lines of a stored file, each with its line feed. Raises ObjectMissing before the first."""
    rest: list[bytes] = []
    for chunk in read_stored(store, key):
        first, *more = chunk.split(b"\n")
        rest.append(first)
        if more:
            yield b"".join(rest) + b"\n"
            yield from (line + b"\n" for line in more[:-1])
            rest = [more[-1]]


def _fingerprint(dataset: Dataset) -> str:
    return hashlib.sha256(f"{dataset.id} {dataset.rows_sha256}".encode()).hexdigest()[:16]
