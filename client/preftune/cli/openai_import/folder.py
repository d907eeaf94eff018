"""Folder of an import on the customer's machine: jobs as listed, files and result files as fetched."""

import base64
import binascii
import csv
import hashlib
import io
import json
import math
import re
from pathlib import Path
from typing import Any

from preftune.cli.openai_import.source import Json, Source

_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_FIGURES = {"train_loss": "openai_train_loss", "valid_loss": "openai_valid_loss"}
_CHUNK_BYTES = 1024 * 1024


class Folder:
    """What was fetched stays, so that a repetition fetches nothing twice and goes on when OpenAI is gone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files, self._results = path / "files", path / "results"
        path.mkdir(mode=0o700, parents=True, exist_ok=True)  # training data, for nobody else on the machine
        for folder in (self._files, self._results):
            folder.mkdir(mode=0o700, exist_ok=True)

    def keep_jobs(self, jobs: list[Json]) -> None:
        self.write("jobs.json", jobs)

    def kept_jobs(self) -> list[Json]:
        """Return the jobs of the last listing. Raises FileNotFoundError, ValueError."""
        jobs: list[Json] = json.loads((self.path / "jobs.json").read_text(encoding="utf-8"))
        return jobs

    def write(self, name: str, value: Any) -> Path:
        """Write JSON, whole or not at all."""
        path = self.path / name
        partial = path.with_name(f"{name}.part")
        partial.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return partial.replace(path)

    def open_upload(self, name: str) -> str | None:
        """Return the id of the upload in parts that a run began for this content, if any."""
        return self._uploads().get(name)

    def note_upload(self, name: str, upload_id: str | None) -> None:
        """Keep the id of an upload in parts before its first part goes out; None: it is no more."""
        others = {known: value for known, value in self._uploads().items() if known != name}
        self.write("uploads.json", others | ({name: upload_id} if upload_id else {}))

    def _uploads(self) -> dict[str, str]:
        path = self.path / "uploads.json"
        uploads: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return uploads

    def file(self, source: Source | None, file_id: str) -> Path:
        """Return a file of rows, fetched unless it is here. Raises NotThere, SourceFailed, FileNotFoundError."""
        path = self._files / safe_name(file_id)
        if not path.exists():
            if source is None:
                raise FileNotFoundError(path)
            num_bytes = source.file(file_id).get("bytes")
            source.download(file_id, path, num_bytes if isinstance(num_bytes, int) else None)
        return path

    def result(self, source: Source | None, file_id: str) -> Path | None:
        """Return a result file as plain CSV; None where it is not here and nobody is asked. Raises as `file`."""
        path = self._results / f"{safe_name(file_id)}.csv"
        if not path.exists():
            if source is None:
                return None
            sent = path.with_suffix(".sent")
            source.download(file_id, sent)
            sent.write_bytes(plain_csv(sent.read_bytes()))
            sent.replace(path)
        return path


def safe_name(file_id: str) -> str:
    """Return the id as the name of a file. Raises ValueError for one that is no plain name."""
    if not _SAFE.fullmatch(file_id) or file_id.endswith(".part"):
        raise ValueError(f"{file_id!r} is no id of a file")
    return file_id


def plain_csv(content: bytes) -> bytes:
    """Decode a result file: OpenAI sends them in base64, others as they are."""
    try:
        decoded = base64.b64decode(content.strip(), validate=True)
    except binascii.Error:
        return content
    return decoded if decoded.startswith(b"step,") else content


def final_figures(path: Path) -> dict[str, str]:
    """Return the last losses of a result file, as metadata of the job that is made here."""
    found: dict[str, str] = {}
    for row in csv.DictReader(io.StringIO(path.read_text(encoding="utf-8", errors="replace"))):
        for column, name in _FIGURES.items():
            text = row.get(column) or ""
            if is_number(text):
                found[name] = text[:64]
    return found


def is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
