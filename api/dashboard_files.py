"""Files of the dashboard below `web/ui`, read once."""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable

MEDIA_TYPES = {
    "css": "text/css",
    "html": "text/html",
    "js": "text/javascript",
    "svg": "image/svg+xml",
}
"""Other files, such as licences, are for readers of the source and are not served."""


@dataclass(frozen=True, kw_only=True)
class WebFile:
    content: bytes
    media_type: str
    etag: str


@cache
def dashboard_files() -> dict[str, WebFile]:
    """Return the files by path below `/ui/`."""
    found: dict[str, WebFile] = {}
    _collect(resources.files("api") / "web" / "ui", "", found)
    return found


def _collect(folder: Traversable, prefix: str, found: dict[str, WebFile]) -> None:
    for entry in folder.iterdir():
        media_type = MEDIA_TYPES.get(entry.name.rpartition(".")[2])
        if entry.is_dir():
            _collect(entry, f"{prefix}{entry.name}/", found)
        elif media_type:
            content = entry.read_bytes()
            etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            found[prefix + entry.name] = WebFile(content=content, media_type=media_type, etag=etag)
