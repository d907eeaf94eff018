"""Download of one commit of a hub repository over HTTPS: only files that training needs, every one verified.

`HF_ENDPOINT` (a mirror) and `HF_TOKEN` (gated models) are read as the hub's own tools read them.
"""

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from core.base_models.catalogue import HubSource
from core.base_models.errors import (
    ChecksumMismatch,
    IncompleteBaseModel,
    InvalidModelSpec,
    PickleRefused,
    SourceUnavailable,
)
from core.base_models.folder import (
    CONFIG_FILE,
    INDEX_FILE,
    PICKLE_SUFFIXES,
    PROCESSOR_FILES,
    SIDE_FILES,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    read_json,
    shard_names,
)
from core.base_models.progress import ProgressCallback, PullProgress

DEFAULT_ENDPOINT = "https://huggingface.co"
CONNECT_SECONDS = 4.0
READ_SECONDS = 20.0
MAX_ATTEMPTS = 4
_OTHER_FILES = (*PROCESSOR_FILES, "README.md", "LICENSE", "LICENSE.txt")


class _Interrupted(Exception):
    """Raised when a transfer broke off; received bytes stay."""


@dataclass(frozen=True, kw_only=True)
class _HubFile:
    name: str
    num_bytes: int
    blob: str
    """SHA-1 of git's blob object."""
    sha256: str | None
    """Only of files in large-file storage, and of those pinned in the catalogue."""


def download(source: HubSource, folder: Path, progress: ProgressCallback) -> None:
    """Fetch the commit's model files into `folder`.

    Raises:
        SourceUnavailable: the hub does not answer, or answers with an error.
        InvalidModelSpec: there is no such repository or commit, or it is gated.
        PickleRefused, IncompleteBaseModel: it holds no safetensors.
        ChecksumMismatch: a file is not what the hub or the catalogue says.
    """
    progress(PullProgress(phase="hub", message=f"asking the hub for {source.repository}"))
    with _client() as client:
        available = _list_files(client, source)
        wanted = [name for name in (CONFIG_FILE, TOKENIZER_FILE, *SIDE_FILES, *_OTHER_FILES) if name in available]
        weights = _choose_weights(client, source, available, folder)
        files = [available[name] for name in [*wanted, *weights]]
        total = sum(file.num_bytes for file in files)
        done = 0

        def on_bytes(count: int) -> None:
            nonlocal done
            done += count
            message = f"downloading {source.repository}"
            progress(PullProgress(phase="hub", message=message, done_bytes=done, total_bytes=total))

        for file in files:
            _fetch(client, source, file, folder / file.name, on_bytes)


def _client() -> httpx.Client:
    token = os.environ.get("HF_TOKEN")
    return httpx.Client(
        base_url=os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT,
        headers={"Authorization": f"Bearer {token}"} if token else {},
        follow_redirects=True,
        timeout=httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
    )


def _list_files(client: httpx.Client, source: HubSource) -> dict[str, _HubFile]:
    url = f"/api/models/{source.repository}/revision/{source.revision}"
    try:
        answer = client.get(url, params={"blobs": "true"})
    except httpx.HTTPError as error:
        raise SourceUnavailable(f"The hub does not answer ({type(error).__name__}).") from error
    if answer.status_code in (401, 403, 404):
        raise InvalidModelSpec(
            f"The hub knows no {source.repository} at commit {source.revision}, or shows it only to those who "
            "accepted its terms: then set HF_TOKEN."
        )
    if answer.status_code != 200:
        raise SourceUnavailable(f"The hub answers with status {answer.status_code}.")
    try:
        return _parse_files(answer.json(), source)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise SourceUnavailable("The hub's answer is not a list of files.") from None


def _parse_files(answer: Any, source: HubSource) -> dict[str, _HubFile]:
    files = {}
    for sibling in answer["siblings"]:
        name = sibling["rfilename"]
        lfs = sibling.get("lfs") or {}
        sha256 = source.sha256.get(name) or lfs.get("sha256")
        files[name] = _HubFile(name=name, num_bytes=sibling["size"], blob=sibling["blobId"], sha256=sha256)
    return files


def _choose_weights(client: httpx.Client, source: HubSource, available: dict[str, _HubFile], folder: Path) -> list[str]:
    if WEIGHTS_FILE in available:
        return [WEIGHTS_FILE]
    if INDEX_FILE in available:
        _fetch(client, source, available[INDEX_FILE], folder / INDEX_FILE, lambda count: None)
        shards = shard_names(read_json(folder / INDEX_FILE))
        if missing := [name for name in shards if name not in available]:
            raise IncompleteBaseModel(f"{source.repository} lacks {', '.join(missing[:3])}.")
        return shards
    if any(name.endswith(PICKLE_SUFFIXES) for name in available):
        raise PickleRefused(f"{source.repository} holds only pickled weights at this commit, which are never loaded.")
    raise IncompleteBaseModel(f"{source.repository} holds no safetensors at this commit.")


def _fetch(
    client: httpx.Client, source: HubSource, file: _HubFile, path: Path, on_bytes: Callable[[int], None]
) -> None:
    for attempt in range(MAX_ATTEMPTS):
        try:
            _continue(client, source, file, path, on_bytes)
            break
        except (httpx.HTTPError, _Interrupted) as error:
            if attempt == MAX_ATTEMPTS - 1:
                raise SourceUnavailable(f"{file.name} broke off {MAX_ATTEMPTS} times ({error}). Pull again.") from error
            time.sleep(2**attempt / 2)
    _check(file, path, source)


def _continue(
    client: httpx.Client, source: HubSource, file: _HubFile, path: Path, on_bytes: Callable[[int], None]
) -> None:
    """Append the missing bytes. A server that ignores the range starts the file anew."""
    there = path.stat().st_size if path.exists() else 0
    if there >= file.num_bytes:
        return
    url = f"/{source.repository}/resolve/{source.revision}/{quote(file.name)}"
    headers = {"Range": f"bytes={there}-"} if there else {}
    # Identity: the sizes and ranges counted here are those of the file, not of a compressed body.
    with client.stream("GET", url, headers=headers | {"Accept-Encoding": "identity"}) as answer:
        if answer.status_code not in (200, 206):
            raise _Interrupted(f"status {answer.status_code}")
        is_continued = answer.status_code == 206
        if there and not is_continued:
            on_bytes(-there)
        left = file.num_bytes - (there if is_continued else 0)
        with path.open("ab" if is_continued else "wb") as target:
            for chunk in answer.iter_bytes(1024**2):
                left -= len(chunk)
                if left < 0:
                    raise ChecksumMismatch(f"{file.name} is longer than the {file.num_bytes:,} bytes announced for it.")
                target.write(chunk)
                on_bytes(len(chunk))
    if path.stat().st_size < file.num_bytes:
        raise _Interrupted("the connection closed early")


def _check(file: _HubFile, path: Path, source: HubSource) -> None:
    sha256, blob = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as content:
        while chunk := content.read(4 * 1024**2):
            sha256.update(chunk)
            blob.update(chunk)
    is_right = sha256.hexdigest() == file.sha256 if file.sha256 else blob.hexdigest() == file.blob
    if not is_right:
        raise ChecksumMismatch(f"{file.name} from {source.repository} has another checksum than expected. Pull again.")
