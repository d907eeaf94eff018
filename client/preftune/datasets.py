"""Requests below `/datasets`."""

import builtins
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from preftune.errors import ApiError, DownloadFailed, PreftuneError, UploadInterrupted
from preftune.transport import Resource

CHUNK_BYTES = 1024 * 1024
IN_PARTS_FROM_BYTES = 64 * 1024 * 1024
"""Larger files are sent in parts, so that a break costs a part and not the file."""


_JSON_OPTIONS = ("columns", "metadata", "values", "ignore")


class Datasets(Resource):
    def upload(
        self,
        path: str | Path,
        *,
        name: str | None = None,
        kind: str = "preference",
        on_error: str = "reject",
        on_progress: Callable[[int], None] | None = None,
        upload_id: str | None = None,
        on_announced: Callable[[str], None] | None = None,
        idempotency_key: str | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Send a file; returns the dataset. Raises ApiError `dataset-rejected` with the whole report in `.problem`.

        `options`: further parameters of `POST /datasets`: `format`, `columns`, `values` and `metadata` (dictionaries),
        `ignore` (a list of names), `ties`, and `split` of a saved `DatasetDict`.
        `on_progress` is told the bytes sent. A large file goes in parts; should that break off, UploadInterrupted
        carries the `upload_id` to call again with: only what is missing is sent then. `on_announced` is told this id
        before the first part. With an `idempotency_key` a file that goes whole is taken in once, however often sent.
        """
        path = Path(path)
        params = {"name": name or path.name, "kind": kind, "on_error": on_error, **options}
        params = {key: value for key, value in params.items() if value is not None}
        if upload_id or path.stat().st_size > IN_PARTS_FROM_BYTES:
            upload = self._announced(path, params, upload_id)
            if on_announced is not None:
                on_announced(upload["id"])
            return self._upload_in_parts(path, upload, on_progress or (lambda num_bytes: None))
        params |= {key: json.dumps(params[key]) for key in _JSON_OPTIONS if key in params}
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(path.stat().st_size)}
        headers |= {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        return self._transport.upload("/datasets", _chunks(path, on_progress), params, headers)

    def _announced(self, path: Path, options: dict[str, Any], upload_id: str | None) -> dict[str, Any]:
        if upload_id is None:
            body = {"num_bytes": path.stat().st_size, "filename": path.name, **options}
            upload: dict[str, Any] = self._transport.post("/uploads", body)
        else:
            upload = self._transport.get(f"/uploads/{upload_id}")
        return upload

    def _upload_in_parts(
        self, path: Path, upload: dict[str, Any], on_progress: Callable[[int], None]
    ) -> dict[str, Any]:
        try:
            if upload["status"] == "open":
                self._send_parts(path, upload, on_progress)
            dataset: dict[str, Any] = self._transport.post_and_wait(f"/uploads/{upload['id']}/complete")
        except ApiError as error:
            if "report" in error.problem:
                raise
            raise UploadInterrupted(upload["id"], error) from error
        except PreftuneError as error:
            raise UploadInterrupted(upload["id"], error) from error
        return dataset

    def _send_parts(self, path: Path, upload: dict[str, Any], on_progress: Callable[[int], None]) -> None:
        """Send the parts that are missing or differ from the file."""
        there = {part["number"]: part["sha256"] for part in upload["parts"]}
        with path.open("rb") as file:
            number = 0
            while content := file.read(upload["part_bytes"]):
                number += 1
                sha256 = hashlib.sha256(content).hexdigest()
                if there.get(number) != sha256:
                    self._transport.put(f"/uploads/{upload['id']}/parts/{number}", content, sha256=sha256)
                on_progress(len(content))

    def get(self, dataset_id: str) -> dict[str, Any]:
        return self._transport.get(f"/datasets/{dataset_id}")

    def list(self, *, limit: int | None = None, cursor: str | None = None) -> dict[str, Any]:
        return self._transport.get("/datasets", limit=limit, cursor=cursor)

    def answers(
        self, dataset_id: str, *, search: str | None = None, limit: int | None = None, cursor: str | None = None
    ) -> dict[str, Any]:
        """Return a page of the prompts of a dataset of responses, each with what models answered."""
        return self._transport.get(f"/datasets/{dataset_id}/answers", search=search, limit=limit, cursor=cursor)

    def rows(
        self,
        dataset_id: str,
        *,
        base_model: str | None = None,
        max_length: int | None = None,
        chat_template_kwargs: dict[str, Any] | None = None,
        line: int | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> dict[str, Any]:
        """Return a page of the rows as jobs read them; with `base_model` also as that model sees them.

        `line`: from this line of the file on.
        """
        return self._transport.get(
            f"/datasets/{dataset_id}/rows",
            base_model=base_model,
            max_length=max_length,
            chat_template_kwargs=_as_json(chat_template_kwargs),
            line=line,
            limit=limit,
            cursor=cursor,
        )

    def tokens(
        self,
        dataset_id: str,
        base_model: str,
        *,
        max_length: int | None = None,
        chat_template_kwargs: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Return lengths in tokens of that base model, and how many rows a job would set aside, and why."""
        return self._transport.get(
            f"/datasets/{dataset_id}/tokens",
            base_model=base_model,
            max_length=max_length,
            chat_template_kwargs=_as_json(chat_template_kwargs),
        )

    def report(self, dataset_id: str, *, limit: int | None = None, cursor: str | None = None) -> dict[str, Any]:
        """Return a page of every issue found in the file."""
        return self._transport.get(f"/datasets/{dataset_id}/report", limit=limit, cursor=cursor)

    def download(self, dataset_id: str, path: str | Path, *, format: str = "original") -> Path:
        """Write the file as uploaded, or with `parquet` or `hf` the rows as jobs read them; returns the path.

        `hf` is a tar of one folder, which `datasets.load_from_disk` opens once it is unpacked. The uploaded file is
        verified by its SHA-256.
        """
        path = Path(path)
        expected = self.get(dataset_id)["sha256"] if format == "original" else None
        digest = hashlib.sha256()
        partial = path.with_name(f".{path.name}.part")
        with partial.open("wb") as file:
            for chunk in self._transport.download(f"/datasets/{dataset_id}/content", format=format):
                digest.update(chunk)
                file.write(chunk)
        if expected not in (None, digest.hexdigest()):
            partial.unlink()
            raise DownloadFailed("the file arrived damaged; call again")
        return partial.replace(path)

    def patch(self, dataset_id: str, **changes: Any) -> dict[str, Any]:
        """Change `name` or `metadata` (all of it); returns the dataset."""
        return self._transport.patch(f"/datasets/{dataset_id}", changes)

    def versions(self, dataset_id: str, *, limit: int | None = None, cursor: str | None = None) -> dict[str, Any]:
        """Return a page of the dataset's versions, newest first."""
        return self._transport.get(f"/datasets/{dataset_id}/versions", limit=limit, cursor=cursor)

    def change(self, dataset_id: str, **changes: Any) -> dict[str, Any]:
        """Make the next version; `changes` are fields of `POST /datasets/{id}/versions`, such as `append`."""
        return self._transport.post_and_wait(f"/datasets/{dataset_id}/versions", changes)

    def merge(self, dataset_ids: Sequence[str], **options: Any) -> dict[str, Any]:
        """Make a new dataset of the rows of others; `options`: `name`, `drop_duplicates`."""
        return self._transport.post_and_wait("/datasets/merge", {"dataset_ids": [*dataset_ids], **options})

    def split(self, dataset_id: str, fractions: Sequence[float], *, seed: int = 0) -> builtins.list[dict[str, Any]]:
        """Make a new dataset of each part, with no prompt in two of them."""
        page: dict[str, Any] = self._transport.post_and_wait(
            f"/datasets/{dataset_id}/split", {"fractions": [*fractions], "seed": seed}
        )
        parts: builtins.list[dict[str, Any]] = page["data"]
        return parts

    def diff(
        self, dataset_id: str, against: str, *, limit: int | None = None, cursor: str | None = None
    ) -> dict[str, Any]:
        """Compare a version with an older one: counts, and a page of the rows that they do not have in common."""
        return self._transport.get(f"/datasets/{dataset_id}/diff", against=against, limit=limit, cursor=cursor)

    def delete(self, dataset_id: str) -> None:
        """Delete a dataset with all its versions, or one later version, `ds_…@<version>`."""
        self._transport.delete(f"/datasets/{dataset_id}")


def _as_json(value: dict[str, Any] | None) -> str | None:
    return json.dumps(value) if value else None


def _chunks(path: Path, on_progress: Callable[[int], None] | None) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
            if on_progress:
                on_progress(len(chunk))
