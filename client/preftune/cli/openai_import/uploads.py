"""Files of rows as datasets of the service: each content once, however often it is sent."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from preftune import ApiError, Client, ConnectionFailed, PreftuneError, UploadInterrupted
from preftune.cli.openai_import.folder import Folder, sha256_of
from preftune.cli.openai_import.translation import idempotency_key

MAX_UPLOAD_TRIES = 5
UPLOAD_PAUSE_SECONDS = 2.0
_RESENT_STATUSES = frozenset({429, 500, 502, 503, 504})
_PASSING_CODES = frozenset(
    {
        *("idempotency-key-in-use", "idempotency-key-reused", "upload-assembling"),
        *("upload-not-found", "dataset-not-found"),
    }
)
"""Refusals of a file that say nothing of the file."""


class FileRefused(Exception):
    """The service does not take the file; `str()` says why, with its first bad lines."""


class Uploads:
    """Datasets of a project, and how files become some.

    Args:
        say: is told what is sent, a line each.
    """

    def __init__(self, client: Client, folder: Folder, say: Callable[[str], None]) -> None:
        self._client, self._folder, self._say = client, folder, say
        self._datasets: dict[tuple[str, str], str] | None = None
        """Datasets by SHA-256 of the file and kind."""

    def dataset(self, path: Path, file_id: str, kind: str) -> str:
        """Return the dataset of this content, made if it is not there. Raises FileRefused, PreftuneError."""
        key = (sha256_of(path), kind)
        if key not in self._known():
            self._say(f"{file_id}: uploading {path.stat().st_size:,} bytes")
            self._known()[key] = self._upload(path, file_id, key)
        return self._known()[key]

    def _upload(self, path: Path, file_id: str, key: tuple[str, str]) -> str:
        failure: PreftuneError | None = None
        for attempt in range(MAX_UPLOAD_TRIES):
            if attempt:
                time.sleep(UPLOAD_PAUSE_SECONDS * 2 ** (attempt - 1))
                self._datasets = None  # it may have arrived although its answer did not
                if key in self._known():
                    return self._known()[key]
            try:
                return self._send(path, file_id, key, is_first=attempt == 0)
            except (UploadInterrupted, ConnectionFailed) as error:
                failure = error
            except ApiError as error:
                if error.status in (401, 403, 507):
                    raise
                if error.status not in _RESENT_STATUSES and error.code not in _PASSING_CODES:
                    raise FileRefused(f"the service refuses {file_id}: {_first_lines(error)}") from error
                failure = error
        assert failure is not None
        raise failure

    def _send(self, path: Path, file_id: str, key: tuple[str, str], *, is_first: bool) -> str:
        """Send the file, or the rest of it where an earlier run was stopped; return the dataset's id.

        Raises ApiError `upload-not-found` or `dataset-not-found` where what an earlier run has sent is gone since; the
        next try sends it anew.
        """
        name = "-".join(key)
        upload_id = self._folder.open_upload(name)
        try:
            made = self._client.datasets.upload(
                path,
                name=file_id,
                kind=key[1],
                metadata={"openai_file": file_id},
                upload_id=upload_id,
                on_announced=lambda announced: self._folder.note_upload(name, announced),
                idempotency_key=idempotency_key([file_id, *key]) if is_first else None,
            )
        except ApiError as error:
            if error.code == "upload-not-found":  # nothing came for a day
                self._folder.note_upload(name, None)
            raise
        # The answer may be that of an earlier run, whose dataset was deleted since.
        return str(self._client.datasets.get(made["id"])["id"])

    def _known(self) -> dict[tuple[str, str], str]:
        """Return the datasets of the project that are ready, by content and kind; read once."""
        if self._datasets is None:
            self._datasets = {
                (dataset["sha256"], dataset["kind"]): dataset["id"]
                for dataset in self._listed()
                if dataset["status"] == "ready" and dataset.get("expires_at") is None
            }
        return self._datasets

    def _listed(self) -> Iterator[dict[str, Any]]:
        cursor: str | None = None
        while True:
            page = self._client.datasets.list(limit=100, cursor=cursor)
            yield from page["data"]
            cursor = page["next_cursor"]
            if cursor is None:
                return


def _first_lines(error: ApiError) -> str:
    """Return the refusal with the first bad lines of a refused file."""
    issues = [issue for issue in error.problem.get("report", {}).get("issues", []) if issue["severity"] == "error"]
    lines = [f"line {issue['line']}: {issue['detail']}" if issue["line"] else issue["detail"] for issue in issues[:3]]
    return " ".join([error.detail, *lines])
