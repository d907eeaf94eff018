"""Key file of a service without API keys, for its own user on the same machine."""

import ipaddress
import os
import stat
from pathlib import Path
from urllib.parse import urlsplit

FILE = "local-key"
DEFAULT_DATA_DIR = "data"
_MAX_BYTES = 4096


def find_local_key(base_url: str, data_dir: Path | None = None) -> str | None:
    """Return the key in the data directory (default: `PREFTUNE_DATA_DIR`, then `data`); None for remote services.

    Read only if it is private to this user.
    """
    if not _is_loopback(urlsplit(base_url).hostname or ""):
        return None
    folder = data_dir or Path(os.environ.get("PREFTUNE_DATA_DIR") or DEFAULT_DATA_DIR)
    try:
        with (folder / FILE).open() as file:
            found = os.fstat(file.fileno())
            is_own = found.st_uid == os.geteuid() and not found.st_mode & 0o077
            return file.read(_MAX_BYTES).strip() if is_own and stat.S_ISREG(found.st_mode) else None
    except (OSError, ValueError):
        return None


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
