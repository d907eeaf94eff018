"""Files of the dashboard below `web/ui`, read once, and the start page as it is served.

The start page holds the style sheets itself, so that a browser paints after one answer. It names the modules below a
folder called after a digest of all files: browsers keep those for good, and another version has other addresses.
"""

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable

START_PAGE = "index.html"
MEDIA_TYPES = {
    "css": "text/css",
    "html": "text/html",
    "js": "text/javascript",
    "svg": "image/svg+xml",
}
"""Other files, such as licences, are for readers of the source and are not served."""
_STYLE_SHEETS = re.compile(r'(?:<link rel="stylesheet" href="[^"]+">\s*)+')
_ADDRESS = re.compile(r'"([^"]+\.css)"')
_OWN_FILE = re.compile(r'(\s(?:src|href)=")(?=[a-z])')
_IN_FOLDER = re.compile(r"v-[0-9a-f]{16}/(?=.)")


@dataclass(frozen=True, kw_only=True)
class WebFile:
    content: bytes
    media_type: str
    etag: str


@dataclass(frozen=True, kw_only=True)
class DashboardFiles:
    files: Mapping[str, WebFile]
    """Files by their path below `/ui/`."""
    folder: str
    """Folder below `/ui/` in which the start page finds the others: `v-`, a digest of all, `/`."""
    style_source: str
    """The start page's style sheet, as its policy names it: `'sha256-…'`."""

    def find(self, path: str) -> WebFile | None:
        """Return the file at a path below `/ui/`, in a folder of another version too."""
        return self.files.get(_IN_FOLDER.sub("", path, count=1) or START_PAGE)

    def is_lasting(self, path: str) -> bool:
        """Tell whether that address will never mean another file."""
        return path.startswith(self.folder)


@cache
def dashboard_files() -> DashboardFiles:
    """Return the files of the dashboard; the first call reads them."""
    files: dict[str, WebFile] = {}
    _collect(resources.files("api") / "web" / "ui", "", files)
    digest = hashlib.sha256("".join(name + file.etag for name, file in sorted(files.items())).encode())
    folder = f"v-{digest.hexdigest()[:16]}/"
    page, style = _start_page(files, folder)
    files[START_PAGE] = _web_file(page, "text/html")
    hashed = base64.b64encode(hashlib.sha256(style).digest()).decode()
    return DashboardFiles(files=files, folder=folder, style_source=f"'sha256-{hashed}'")


def _start_page(files: Mapping[str, WebFile], folder: str) -> tuple[bytes, bytes]:
    """Return the start page with its style sheets in it, and what these are together."""
    text = files[START_PAGE].content.decode()
    links = _STYLE_SHEETS.search(text)
    if links is None:
        raise ValueError(f"{START_PAGE} links no style sheet")
    style = b"".join(files[name].content for name in _ADDRESS.findall(links[0])).decode()
    head, tail = (_OWN_FILE.sub(rf"\g<1>{folder}", part) for part in (text[: links.start()], text[links.end() :]))
    return f"{head}<style>{style}</style>\n  {tail}".encode(), style.encode()


def _collect(folder: Traversable, prefix: str, found: dict[str, WebFile]) -> None:
    for entry in folder.iterdir():
        media_type = MEDIA_TYPES.get(entry.name.rpartition(".")[2])
        if entry.is_dir():
            _collect(entry, f"{prefix}{entry.name}/", found)
        elif media_type:
            found[prefix + entry.name] = _web_file(entry.read_bytes(), media_type)


def _web_file(content: bytes, media_type: str) -> WebFile:
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    return WebFile(content=content, media_type=media_type, etag=etag)
