"""`/datasets`."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from preftune.transport import Transport

CHUNK_BYTES = 1024 * 1024


class Datasets:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def upload(
        self,
        path: str | Path,
        *,
        name: str | None = None,
        kind: str = "preference",
        on_error: str = "reject",
        on_progress: Callable[[int], None] | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Send a file; returns the data set. Raises ApiError `dataset-rejected` with the whole report in `.problem`.

        `options`: further parameters of `POST /datasets`, such as `format`. `on_progress` is told the bytes sent.
        """
        path = Path(path)
        params = {"name": name or path.name, "kind": kind, "on_error": on_error, **options}
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(path.stat().st_size)}
        dataset: dict[str, Any] = self._transport.upload("/datasets", _chunks(path, on_progress), params, headers)
        return dataset

    def get(self, dataset_id: str) -> dict[str, Any]:
        dataset: dict[str, Any] = self._transport.get(f"/datasets/{dataset_id}")
        return dataset

    def list(self, *, limit: int | None = None, cursor: str | None = None) -> dict[str, Any]:
        page: dict[str, Any] = self._transport.get("/datasets", limit=limit, cursor=cursor)
        return page

    def rows(self, dataset_id: str, *, limit: int | None = None, cursor: str | None = None) -> dict[str, Any]:
        page: dict[str, Any] = self._transport.get(f"/datasets/{dataset_id}/rows", limit=limit, cursor=cursor)
        return page

    def delete(self, dataset_id: str) -> None:
        self._transport.delete(f"/datasets/{dataset_id}")


def _chunks(path: Path, on_progress: Callable[[int], None] | None) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
            if on_progress:
                on_progress(len(chunk))
